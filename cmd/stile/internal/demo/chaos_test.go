package demo

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/demo/fakeshop"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

func TestChaos(t *testing.T) {
	for _, helpless := range []string{"", "on"} {
		t.Run(helpless, func(t *testing.T) {
			t.Setenv(fakeshop.Helpless, helpless)
			cfg, out := fakeDemo(t)
			cfg.Duration, cfg.Rate, cfg.Policy = 4*time.Second, 200, "policy.yaml"
			r, err := Chaos(t.Context(), cfg)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if r.Rate != 200 || r.Policy != "policy.yaml" || len(r.Phases) != len(script) || r.Helped != (helpless == "") {
				t.Errorf("%+v", r)
			}
			for _, p := range r.Phases {
				for _, s := range []ChaosSide{p.Without, p.With} {
					if s.Requests < 5 || s.Good+s.Failed > s.Requests {
						t.Errorf("%s: %+v", p.Name, s)
					}
				}
				if p.Fault == "" {
					continue
				}
				if p.Without.Failed == 0 || !strings.Contains(p.Without.Failure, "fake fault") || p.Without.Recovered == nil || p.Without.Adapted != nil {
					t.Errorf("%s without the policy: %+v", p.Name, p.Without)
				}
				if helpless == "" && (p.With.Failed != 0 || p.With.Adapted == nil) {
					t.Errorf("%s with the policy: %+v", p.Name, p.With)
				}
			}
			if want := map[string]int{"": 0, "on": 3}[helpless]; len(r.Unhelped()) != want {
				t.Errorf("of no help while %q, want %d", r.Unhelped(), want)
			}
			for _, want := range []string{"without the policy …", "with the policy, ", "pricing slow: each", "catalog dead: killed"} {
				if !strings.Contains(out.String(), want) {
					t.Errorf("the progress does not say %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestChaosInterrupted interrupts at lines of the progress.
func TestChaosInterrupted(t *testing.T) {
	for _, at := range []string{"without the policy …", "quiet", "pricing slow", "catalog dead", "quiet at last"} {
		t.Run(at, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			stop := errors.New("stop")
			cfg, _ := fakeDemo(t)
			cfg.Duration = 3 * time.Second
			progress := &trigger{on: at, do: func() { cancel(stop) }}
			cfg.Progress = progress
			if _, err := Chaos(ctx, cfg); !errors.Is(err, stop) {
				t.Errorf("%v, want %v", err, stop)
			}
		})
	}
}

func TestChaosNoticesDeath(t *testing.T) {
	t.Setenv(fakeshop.Dying, "mailer")
	cfg, out := fakeDemo(t)
	cfg.Duration = time.Minute
	if _, err := Chaos(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "mailer ended in the middle") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRestart(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		s, err := startSet(t.Context(), fakeSet(t, network), mustNotFail(t))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			before := s.process("catalog")
			s.killProgram("catalog")
			if err := s.restart(t.Context(), "catalog"); err != nil {
				t.Fatal(err)
			}
			if after := s.process("catalog"); after == before || after.address != before.address {
				t.Errorf("%s: it was at %s, and is at %s", network, before.address, after.address)
			}
		}
		if err := s.stop(t.Context()); err != nil {
			t.Error(err)
		}
		if alive(s) {
			t.Error("a process is left")
		}
	}
}

func TestProgramsGetPolicyAndFaults(t *testing.T) {
	t.Setenv("SHOP_POLICY", "nonsense")
	t.Setenv("SHOP_FAULTS", "nonsense")
	for want, cfg := range map[string]setConfig{
		"":                      {},
		"SHOP_POLICY=p.yaml":    {policy: "p.yaml"},
		"SHOP_FAULTS=f/catalog": {faults: "f"},
	} {
		var got []string
		for _, v := range cfg.environment("catalog") {
			if strings.HasPrefix(v, "SHOP_") {
				got = append(got, filepath.ToSlash(v))
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestScriptShares(t *testing.T) {
	sum := 0.0
	for i, p := range script {
		sum += p.share
		if p.faulty() && (!slices.Contains(programs, p.program) || p.what == "" || i+1 == len(script) || script[i+1].faulty()) {
			t.Errorf("%+v", p)
		}
	}
	if sum < 0.999 || sum > 1.001 {
		t.Errorf("the phases are %v of a turn", sum)
	}
}

func TestControlFile(t *testing.T) {
	turn := &turn{faults: t.TempDir()}
	for _, text := range []string{"delay=200ms", ""} {
		if err := turn.control("pricing", text); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(turn.faults, "pricing")); err != nil || string(got) != text {
			t.Errorf("%q %v, want %q", got, err, text)
		}
	}
}

// sent is a turn whose phases take 10 s each, with ten requests a second. bad tells which requests,
// by the time at which they are due in seconds, are answered badly.
func sent(bad func(at float64) (time.Duration, error)) *turn {
	start := time.Unix(1000, 0)
	t := &turn{}
	for i := range script {
		begun := start.Add(time.Duration(i) * 10 * time.Second)
		t.spans = append(t.spans, span{begun, begun.Add(10 * time.Second)})
	}
	for n := range 100 * len(script) {
		took, err := bad(float64(n) / 10)
		t.answers = append(t.answers, answer{int64(n), start.Add(time.Duration(n) * 100 * time.Millisecond), took, err})
	}
	slices.Reverse(t.answers) // they come in any order
	return t
}

func TestChaosResult(t *testing.T) {
	broken := errors.New("broken")
	const ms = time.Millisecond
	without := sent(func(at float64) (time.Duration, error) {
		switch {
		case at >= 10 && at < 20: // slow for good: what is due in the last 0.9 s is relieved by the end
			return min(3*time.Second, time.Duration((20-at)*float64(time.Second))+10*ms), nil
		case at >= 30 && at < 41.95:
			return 0, broken
		case at >= 50:
			return 0, broken
		}
		return 10 * ms, nil
	})
	with := sent(func(at float64) (time.Duration, error) {
		if at >= 10 && at < 12 {
			return 0, broken
		}
		return 5 * ms, nil
	})
	r := chaosResult(10, without, with)
	for i, want := range []struct {
		good, failed  [2]int
		back, backToo string
	}{
		{[2]int{100, 100}, [2]int{0, 0}, "not at all", "not at all"},
		{[2]int{9, 80}, [2]int{0, 20}, "0.0 s after the fault ended", "2.0 s after the fault began"},
		{[2]int{100, 100}, [2]int{0, 0}, "not at all", "not at all"},
		{[2]int{0, 100}, [2]int{100, 0}, "2.0 s after the fault ended", "0.0 s after the fault began"},
		{[2]int{80, 100}, [2]int{20, 0}, "not at all", "not at all"},
		{[2]int{0, 100}, [2]int{100, 0}, "not at all", "0.0 s after the fault began"},
		{[2]int{0, 100}, [2]int{100, 0}, "not at all", "not at all"},
	} {
		p := r.Phases[i]
		if a, b := p.Without, p.With; a.Good != want.good[0] || b.Good != want.good[1] || a.Failed != want.failed[0] || b.Failed != want.failed[1] ||
			a.back() != want.back || b.back() != want.backToo || a.Requests != 100 || a.Seconds != 10 {
			t.Errorf("%d: %+v (%s, %s)", i, p, a.back(), b.back())
		}
	}
	if !r.Helped || *r.Phases[0].With.P50 != 5 || *r.Phases[1].Without.P99 != 3000 || r.Phases[5].Without.P50 != nil || r.Phases[3].With.Goodput != 10 {
		t.Errorf("%+v", r)
	}
	text := r.Table(terminal.Style{})
	for _, want := range []string{
		"\npricing slow             0.90     8.00       0.0   20.0      3000    5.00      3000    5.00\n",
		"\ncatalog dead             0.00     10.0     100.0    0.0         –    5.00         –    5.00\n",
		"\ncatalog dead (catalog: killed, and started again at the end): goodput was back, without the policy, not at all; with it, 0.0 s after the fault began.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if back := chaosResult(10, with, without); back.Helped || !slices.Equal(back.Unhelped(), []string{"pricing slow", "inventory failing", "catalog dead"}) {
		t.Errorf("%+v", back)
	}
}

func TestChaosResultOfNothing(t *testing.T) {
	empty := &turn{spans: make([]span, len(script))}
	r := chaosResult(1, empty, empty)
	if _, err := json.Marshal(r); err != nil || r.Helped {
		t.Errorf("%+v %v", r, err)
	}
	_ = r.Table(terminal.Style{})
}
