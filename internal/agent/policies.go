package agent

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/internal/inforce"
)

// What a window tells of policies at most.
const (
	maxPolicies    = 64
	maxControls    = 500      // of all of them
	maxText        = 64 << 10 // bytes of one that is told
	maxTexts       = 1 << 20  // of all; others come with a later window
	maxRefusedText = 4 << 10
)

// policyKey is what makes policies alike.
type policyKey struct {
	source, from, version, refused string
	hash                           [16]byte
}

// policies are those in force, as they are reported, with the texts that the hub has not had.
func (a *Agent) policies(now []inforce.Policy) []*hubpb.Policy {
	slices.SortFunc(now, func(a, b inforce.Policy) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), slices.Compare(a.Hash[:], b.Hash[:]), cmp.Compare(a.From, b.From), a.Since.Compare(b.Since))
	})
	var all []*hubpb.Policy
	at := map[policyKey]*hubpb.Policy{}
	controls, texts := 0, 0
	for _, p := range now {
		k := policyKey{p.Source, p.From, p.Version, p.Refused, p.Hash}
		if at[k] == nil {
			if len(all) >= maxPolicies {
				continue
			}
			at[k] = &hubpb.Policy{
				Source: short(p.Source), From: p.From, Version: short(p.Version), Hash: p.Hash[:], SinceUnixNano: p.Since.UnixNano(), Refused: cut(p.Refused, maxRefusedText),
			}
			all = append(all, at[k])
			if n := len(p.Text); n <= maxText && !a.texts[p.Hash] && texts+n <= maxTexts && utf8.ValidString(p.Text) {
				at[k].Text = p.Text
				texts += n
				a.texts[p.Hash] = true
			}
		}
		at[k].Alike++
		at[k].Changed = at[k].Changed || p.Changed
		for _, c := range p.Controls[:min(len(p.Controls), maxControls-controls)] {
			controls++
			at[k].Controls = append(at[k].Controls, &hubpb.Control{
				Kind: c.Kind, Method: short(c.Method), Target: short(c.Target), State: c.State, Limit: uint64(c.Limit), Most: uint64(c.Most), InFlight: uint64(c.InFlight), Pending: uint64(c.Pending),
			})
		}
	}
	return all
}

// cut is a text that is not longer than a hub takes.
func cut(text string, most int) string {
	text = strings.ToValidUTF8(text, "?")
	if len(text) <= most {
		return text
	}
	const more = " …"
	text = text[:most-len(more)]
	for !utf8.ValidString(text) {
		text = text[:len(text)-1]
	}
	return text + more
}
