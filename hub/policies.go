package hub

import (
	"crypto/sha256"
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
)

// Bounds of what processes report of policies.
const (
	maxReportPolicies = 64
	maxReportControls = 1000     // of all policies of a report
	maxPolicyText     = 64 << 10 // bytes
	maxPolicyRefused  = 4 << 10  // bytes
	maxPolicyCount    = 1 << 40  // of calls, in controls
	maxWindowPolicies = 20_000   // versions of sources
	maxPoliciesBytes  = 64 << 20 // that take all that processes have in force, without texts
	refusedPolicies   = "more policies in force than there is room for"
)

func checkPolicies(all []*hubpb.Policy) error {
	if len(all) > maxReportPolicies {
		return fmt.Errorf("%d policies; %d at most", len(all), maxReportPolicies)
	}
	controls := 0
	for _, p := range all {
		if controls += len(p.GetControls()); controls > maxReportControls {
			return fmt.Errorf("%d breakers and limits; %d at most", controls, maxReportControls)
		}
		if err := checkPolicy(p); err != nil {
			return fmt.Errorf("policy %.256q: %w", p.GetSource(), err)
		}
	}
	return nil
}

func checkPolicy(p *hubpb.Policy) error {
	if err := checkNames(p.GetSource(), p.GetFrom(), p.GetVersion()); err != nil {
		return err
	}
	if len(p.GetHash()) != len(store.PolicyID{}) {
		return fmt.Errorf("a hash of %d bytes, not %d", len(p.GetHash()), len(store.PolicyID{}))
	}
	for what, of := range map[string]struct {
		text string
		most int
	}{"text": {p.GetText(), maxPolicyText}, "reason": {p.GetRefused(), maxPolicyRefused}} {
		if len(of.text) > of.most || !utf8.ValidString(of.text) {
			return fmt.Errorf("a %s of %d bytes; %d at most, of UTF-8", what, len(of.text), of.most)
		}
	}
	if sum := sha256.Sum256([]byte(p.GetText())); p.GetText() != "" && string(sum[:len(p.GetHash())]) != string(p.GetHash()) {
		return fmt.Errorf("a text whose hash is not %x", p.GetHash())
	}
	if p.GetSinceUnixNano() < 0 || p.GetAlike() == 0 {
		return fmt.Errorf("%d in force since %d", p.GetAlike(), p.GetSinceUnixNano())
	}
	for _, c := range p.GetControls() {
		if err := checkNames(c.GetKind(), c.GetMethod(), c.GetTarget(), c.GetState()); err != nil {
			return err
		}
		if n := max(c.GetLimit(), c.GetMost(), c.GetInFlight(), c.GetPending()); n > maxPolicyCount {
			return fmt.Errorf("a %.256q of %d calls; %d at most", c.GetKind(), n, uint64(maxPolicyCount))
		}
	}
	return nil
}

// policyKey is a version of a source.
type policyKey struct {
	source store.PolicySource
	id     store.PolicyID
}

func sourceOf(p *hubpb.Policy, service string) store.PolicySource {
	if p.GetSource() == "" {
		return store.PolicySource{Service: service}
	}
	return store.PolicySource{Name: p.GetSource()}
}

// inForceLocked heeds what a process has in force, and notes for the store which versions there are. Of a process for which there is no room it is not known.
func (a *agents) inForceLocked(p *process, all []*hubpb.Policy) (room bool) {
	a.policyBytes -= p.policyBytes
	p.policies, p.policyBytes = nil, 0
	for _, one := range all {
		k := policyKey{sourceOf(one, p.is.GetService()), store.PolicyID(one.GetHash())}
		v, known := a.versions[k]
		if known || len(a.versions) < maxWindowPolicies {
			v.Source, v.ID, v.Version = k.source, k.id, one.GetVersion()
			if since := time.Unix(0, one.GetSinceUnixNano()); !known || since.Before(v.Since) {
				v.Since = since
			}
			if one.GetText() != "" {
				v.Text = one.GetText()
			}
			a.versions[k] = v
		}
		one.Text = ""
		p.policyBytes += proto.Size(one) + partBytes*(2+len(one.GetControls())) // a policy is as large as two
	}
	if a.policyBytes+p.policyBytes > maxPoliciesBytes {
		p.policyBytes = 0
		return false
	}
	p.policies = all
	a.policyBytes += p.policyBytes
	return true
}

// versionsLocked hands over the versions of a window.
func (a *agents) versionsLocked() []store.Policy {
	all := make([]store.Policy, 0, len(a.versions))
	for _, v := range a.versions {
		all = append(all, v)
	}
	a.versions = map[policyKey]store.Policy{}
	return all
}

// lagAfter is how long ago a process has reported at most of which it is said whether it lags.
const lagAfter = time.Minute
