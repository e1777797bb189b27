package policy

import (
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/stile-ipc/stile/internal/inforce"
)

// newRules puts c's text with it, made when it is asked for.
func newRules(c *Config) *rules {
	return &rules{Config: c, version: c.Stile.Version, text: sync.OnceValues(c.canonical)}
}

// canonical is the text of the same rules whatever wrote them, and what names it. A Config that Parse has not made has a name alone.
func (c *Config) canonical() (text string, hash [16]byte) {
	all, err := json.Marshal(c)
	if c.whole != nil {
		all, err = c.ServiceConfig(false), nil
		text = string(all)
	}
	if err == nil {
		sum := sha256.Sum256(all)
		copy(hash[:], sum[:])
	}
	return text, hash
}

// told has a hub told of p from now on, if this process has one.
func (p *Policy) told() *Policy {
	p.following.mu.Lock()
	p.following.begun = true
	p.following.mu.Unlock()
	inforce.Add(p, (*Policy).inForce)
	return p
}

// inForce is what a hub is told.
func (p *Policy) inForce() inforce.Policy {
	f := &p.following
	f.mu.Lock()
	r, s, changed := p.rules.Load(), f.status, f.changed
	f.mu.Unlock()
	now := inforce.Policy{Source: f.name, From: string(s.Source), Version: r.version, Since: s.Since, Changed: changed, Refused: s.Error}
	if now.Source == "" {
		now.Source = r.file
	}
	now.Text, now.Hash = r.text()
	now.Controls = p.controls()
	return now
}

// maxControls is how many breakers and limits are told of.
const maxControls = 500

// controls are how breakers and limits stand, by target and method.
func (p *Policy) controls() (all []inforce.Control) {
	p.mu.Lock()
	targets := make([]*target, 0, len(p.targets))
	for _, name := range slices.Sorted(maps.Keys(p.targets)) {
		targets = append(targets, p.targets[name])
	}
	p.mu.Unlock()
	now := p.now()
	for _, t := range targets {
		if all = t.controls(all, now); len(all) >= maxControls {
			return all[:maxControls]
		}
	}
	return all
}

func (t *target) controls(all []inforce.Control, now time.Duration) []inforce.Control {
	if a := t.admit.Load(); a != nil && t.p.Config().Stile.Admission != nil {
		c := inforce.Control{Kind: "admission", Target: t.name, Most: a.of.MaxRequests}
		c.Limit, c.InFlight, c.Pending = a.Stats()
		all = append(all, c)
	}
	routes := t.table.Load().routes
	for _, method := range slices.Sorted(maps.Keys(routes)) {
		r := routes[method]
		if r.breaker != nil {
			all = append(all, inforce.Control{Kind: "breaker", Method: method, Target: t.name, State: r.breaker.State(now).String()})
		}
		if r.limit != nil {
			c := inforce.Control{Kind: "limit", Method: method, Target: t.name, Most: r.Config.Stile.Limit.MaxRequests}
			c.Limit, c.InFlight, c.Pending = r.limit.Stats()
			all = append(all, c)
		}
	}
	return all
}
