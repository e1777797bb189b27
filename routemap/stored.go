package routemap

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
)

// What is kept of samples when a map is stored: it is merged with others.
const (
	storedSamples = 64
	storedRecords = 500
)

// storedRoute is what is known of a route, as it is stored.
type storedRoute struct {
	Stats
	Sampled uint64 `json:"sampled"`
}

// storedRest is the rest of a map, as it is stored.
type storedRest struct {
	Traces   uint64            `json:"traces"`
	Whole    uint64            `json:"whole"`
	Spans    uint64            `json:"spans"`
	Nameless uint64            `json:"nameless"`
	Faults   map[string]uint64 `json:"faults"`
	Nodes    []NodeReport      `json:"nodes"`
	Names    []string          `json:"names"` // of steps
	Paths    []storedPath      `json:"paths"` // parents before children
	Records  []storedRecord    `json:"records"`
	Seen     uint64            `json:"seen"` // what the records are a sample of
	Chains   []storedChain     `json:"chains"`
	PlusOnes []storedPlusOne   `json:"plusOnes"`
}

type storedPath struct {
	Parent   int32  `json:"p"` // -1: a root
	Name     int32  `json:"n"`
	Took     int64  `json:"t,omitempty"`
	Traces   uint64 `json:"c,omitempty"` // of a root
	Duration int64  `json:"d,omitempty"`
}

type storedRecord struct {
	Root     int32      `json:"r"`
	Duration int64      `json:"d"`
	Parts    [][2]int64 `json:"p"` // path and ns
}

type storedChain struct {
	Chain
	Sum uint64 `json:"sum"`
}

type storedPlusOne struct {
	From      Node       `json:"from"`
	To        Node       `json:"to"`
	Operation string     `json:"operation"`
	Within    string     `json:"within"`
	Groups    uint64     `json:"groups"`
	Calls     uint64     `json:"calls"`
	Most      int        `json:"most"`
	Took      int64      `json:"took"`
	Evidence  []Evidence `json:"evidence"`
}

// Store calls put with each route and what is known of it, and returns the rest of the map. [Map.Load] and [Map.LoadRoute] merge them into a map, of
// which those of samples are fewer then. The time that it is of is not stored.
func (m *Map) Store(put func(Key, []byte) error) (rest []byte, err error) {
	for k, s := range m.routes {
		of := storedRoute{*s, s.sampled}
		of.Samples = some(m.rand, s.Samples, storedSamples)
		data, err := json.Marshal(&of)
		if err != nil {
			return nil, err
		}
		if err := put(k, data); err != nil {
			return nil, err
		}
	}
	return json.Marshal(m.rest())
}

func (m *Map) rest() *storedRest {
	r := &storedRest{Traces: m.traces, Whole: m.whole, Spans: m.spans, Nameless: m.nameless, Faults: m.faults, Names: m.paths.names, Seen: m.paths.seen}
	for n, s := range m.nodes {
		r.Nodes = append(r.Nodes, NodeReport{n, *s})
	}
	r.Paths, r.Records = m.paths.stored(m.rand)
	for _, c := range m.chains {
		r.Chains = append(r.Chains, storedChain{*c, c.sum})
	}
	for k, p := range m.plusOnes {
		r.PlusOnes = append(r.PlusOnes, storedPlusOne{k.from, k.to, k.operation, k.within, p.groups, p.calls, p.most, p.took, p.evidence})
	}
	return r
}

func (p *paths) stored(r *rand.Rand) (all []storedPath, records []storedRecord) {
	for i, n := range p.all {
		one := storedPath{Parent: n.parent, Name: n.label, Took: p.sums[int32(i)]}
		if sum := p.roots[int32(i)]; sum != nil {
			one.Traces, one.Duration = sum.traces, sum.duration
		}
		all = append(all, one)
	}
	for _, rec := range some(r, p.kept, storedRecords) {
		one := storedRecord{Root: rec.root, Duration: rec.duration}
		for _, part := range rec.parts {
			one.Parts = append(one.Parts, [2]int64{int64(part.path), part.took})
		}
		records = append(records, one)
	}
	return all, records
}

// LoadRoute merges what Store has put for a route.
func (m *Map) LoadRoute(k Key, data []byte) error {
	var of storedRoute
	if err := json.Unmarshal(data, &of); err != nil {
		return fmt.Errorf("route %s: %w", k, err)
	}
	of.sampled = of.Sampled
	m.route(k).merge(m.rand, &of.Stats)
	return nil
}

// Load merges the rest of a map that was stored.
func (m *Map) Load(rest []byte) error {
	var r storedRest
	if err := json.Unmarshal(rest, &r); err != nil {
		return err
	}
	o := New()
	o.traces, o.whole, o.spans, o.nameless, o.faults = r.Traces, r.Whole, r.Spans, r.Nameless, r.Faults
	for _, n := range r.Nodes {
		o.nodes[n.Node] = &n.NodeStats
	}
	if err := o.paths.load(&r); err != nil {
		return err
	}
	for _, c := range r.Chains {
		c.sum = c.Sum
		o.chains[c.Root] = &c.Chain
	}
	for _, p := range r.PlusOnes {
		o.plusOnes[plusOneKey{p.From, p.To, p.Operation, p.Within}] = &plusOne{p.Groups, p.Calls, p.Most, p.Took, p.Evidence}
	}
	m.Merge(o)
	return nil
}

var errPaths = errors.New("its paths are not as they were stored")

// load takes in what was stored, into paths that are empty.
func (p *paths) load(r *storedRest) error {
	p.names, p.seen = r.Names, r.Seen
	for i, one := range r.Paths {
		if one.Parent < -1 || int(one.Parent) >= i || one.Name < 0 || int(one.Name) >= len(p.names) {
			return errPaths
		}
		p.all = append(p.all, pathNode{parent: one.Parent, label: one.Name})
		if one.Took != 0 {
			p.sums[int32(i)] = one.Took
		}
		if one.Traces > 0 {
			p.roots[int32(i)] = &rootSum{one.Traces, one.Duration}
		}
	}
	for _, rec := range r.Records {
		if rec.Root < 0 || int(rec.Root) >= len(p.all) {
			return errPaths
		}
		one := record{root: rec.Root, duration: rec.Duration}
		for _, of := range rec.Parts {
			if of[0] < 0 || of[0] >= int64(len(p.all)) {
				return errPaths
			}
			one.parts = append(one.parts, part{int32(of[0]), of[1]})
		}
		p.kept = append(p.kept, one)
	}
	return nil
}
