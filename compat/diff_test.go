package compat

import (
	"slices"
	"sync"
	"testing"
)

// diffCase is one behaviour; run writes what it sees to env's transcript.
type diffCase struct {
	name string
	run  func(*env)
	// remote is set where the local door may rightly stay shut.
	remote bool
}

func diffCases() []diffCase {
	return slices.Concat(basicCases, metadataCases, statusCases, deadlineCases, streamCases,
		limitCases, optionCases, interceptCases, statsCases, serverCases, ecosystemCases, namesCases,
		addressCases, lifecycleCases, scriptCases)
}

func TestDifferential(t *testing.T) {
	cases := diffCases()
	names := map[string]bool{}
	for _, c := range cases {
		if names[c.name] {
			t.Fatalf("two cases are called %s", c.name)
		}
		names[c.name] = true
	}
	count("differential", func(c *tally) { c.cases = len(cases) })
	var mu sync.Mutex
	want := map[string]map[string][]string{}
	for i, d := range doors() {
		underDoor(t, "differential", d, func(t *testing.T) {
			inParallel(t, cases, func(t *testing.T, c diffCase) {
				got := runCase(t, d, c)
				mu.Lock()
				if i == 0 {
					want[c.name] = got
				}
				w, ok := want[c.name]
				mu.Unlock()
				if !ok {
					t.Fatal("no reference")
				}
				text, why := diff(w, got), knownDifferences[c.name]
				if d.local && why != "" {
					count("differential", func(c *tally) { c.known++ })
					if text == "" {
						t.Errorf("%s no longer differs from grpc-go: take it out of knownDifferences", c.name)
					}
				} else if text != "" {
					t.Errorf("%s differs from grpc-go at door %s (- grpc-go, + door):\n%s", c.name, d.name, text)
				}
				count("differential", func(c *tally) {
					c.runs++
					if t.Failed() {
						c.failed++
					}
				})
			})
		})
	}
}

// parallelCases is how many cases run at once: most of them wait.
const parallelCases = 4

// inParallel runs each case as a subtest, a few at a time. It is not t.Parallel
// because the doors set the environment.
func inParallel(t *testing.T, cases []diffCase, f func(*testing.T, diffCase)) {
	slots := make(chan struct{}, parallelCases)
	var wg sync.WaitGroup
	for _, c := range cases {
		slots <- struct{}{}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() { <-slots }()
			t.Run(c.name, func(t *testing.T) { f(t, c) })
		}()
	}
	wg.Wait()
}
