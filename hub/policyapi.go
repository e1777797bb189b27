package hub

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/policy"
)

// Policies is what GET /api/v1/policies answers: what is in force in the processes that report.
type Policies struct {
	Sources  []PolicySource `json:"sources"`
	Policies []PolicyReport `json:"policies"` // those that lag, or refuse a version, first
	All      int            `json:"all"`      // how many there are of the latter
}

// PolicySource is a file or feed, or a service's code, and its versions.
type PolicySource struct {
	Source    string          `json:"source"`            // empty: the code of the service
	Service   string          `json:"service,omitempty"` // of a source without a name
	Newest    string          `json:"newest,omitempty"`  // the version that came into force last, of those that are; empty: none is now
	Since     time.Time       `json:"since,omitzero"`    // it is in force
	Processes int             `json:"processes"`
	Lagging   int             `json:"lagging"`  // that have another one than the newest
	Refusing  int             `json:"refusing"` // that do not take what is there now
	Versions  []PolicyVersion `json:"versions"` // the newest first
}

// PolicyVersion is one version of a source.
type PolicyVersion struct {
	ID        string    `json:"id"`      // of its text
	Version   string    `json:"version"` // as it calls itself
	First     time.Time `json:"first"`   // that a process had it in force, by its clock
	Seen      time.Time `json:"seen"`    // the last
	Processes int       `json:"processes"`
	Kept      bool      `json:"kept"` // its text is
	rank      time.Time
}

// PolicyReport is a policy in a process, or several that are alike.
type PolicyReport struct {
	Source   string          `json:"source"`
	Service  string          `json:"service"`
	PID      int64           `json:"pid"`
	Host     string          `json:"host"`
	Seen     time.Time       `json:"seen"` // when the process has reported
	ID       string          `json:"id"`
	Version  string          `json:"version"`
	From     string          `json:"from"`    // "file", "feed", "last good copy", "api"
	Since    time.Time       `json:"since"`   // by the process's clock
	Changed  bool            `json:"changed"` // another version was in force before
	Refused  string          `json:"refused,omitempty"`
	Alike    uint32          `json:"alike"`
	Lags     time.Duration   `json:"lags,omitempty"` // ns since which a newer version is in force elsewhere
	Controls []PolicyControl `json:"controls"`
}

// PolicyControl is a breaker or limit of a policy, as it was at the end of its process's last window.
type PolicyControl struct {
	Kind     string `json:"kind"`   // "breaker", "limit", "admission"
	Method   string `json:"method"` // empty: all of them
	Target   string `json:"target"` // empty: the server's side
	State    string `json:"state,omitempty"`
	Limit    uint64 `json:"limit"`
	Most     uint64 `json:"most"`
	InFlight uint64 `json:"inFlight"`
	Pending  uint64 `json:"pending"`
}

// Bounds of an answer.
const (
	maxPoliciesTold = 5000
	maxVersionsTold = 50 // of a source
)

// policies reads nothing.
func (h *Hub) policies(r *http.Request) (any, error) {
	if err := onlyKnown(r.URL.Query()); err != nil {
		return nil, err
	}
	known, err := h.store.Policies(r.Context())
	if err != nil {
		return nil, err
	}
	return policiesOf(h.agents.policies(), known, h.cfg.clock()), nil
}

// policyRow is what a process has in force, and of which source.
type policyRow struct {
	source store.PolicySource
	PolicyReport
}

func (a *agents) policies() (all []policyRow) {
	var processes []process
	a.mu.Lock()
	for _, p := range a.processes {
		if len(p.policies) > 0 {
			processes = append(processes, process{is: p.is, seen: p.seen, policies: p.policies}) // which are replaced, and never changed
		}
	}
	a.mu.Unlock()
	for _, p := range processes {
		for _, one := range p.policies {
			row := policyReport(one, p.is.GetService(), p.is.GetHost(), p.is.GetPid(), p.seen)
			all = append(all, policyRow{sourceOf(one, p.is.GetService()), row})
		}
	}
	return all
}

// policyReport is what a process has said of a policy that it has in force.
func policyReport(p *hubpb.Policy, service, host string, pid int64, seen time.Time) PolicyReport {
	out := PolicyReport{
		Source: p.GetSource(), Service: service, PID: pid, Host: host, Seen: seen.UTC(), ID: store.PolicyID(p.GetHash()).String(), Version: p.GetVersion(),
		From: p.GetFrom(), Since: time.Unix(0, p.GetSinceUnixNano()).UTC(), Changed: p.GetChanged(), Refused: p.GetRefused(), Alike: p.GetAlike(), Controls: []PolicyControl{},
	}
	for _, c := range p.GetControls() {
		out.Controls = append(out.Controls, PolicyControl{c.GetKind(), c.GetMethod(), c.GetTarget(), c.GetState(), c.GetLimit(), c.GetMost(), c.GetInFlight(), c.GetPending()})
	}
	return out
}

func policiesOf(rows []policyRow, known []store.PolicyVersion, now time.Time) Policies {
	versions := map[store.PolicySource]map[string]*PolicyVersion{}
	version := func(of store.PolicySource, v PolicyVersion) *PolicyVersion {
		if versions[of] == nil {
			versions[of] = map[string]*PolicyVersion{}
		}
		if versions[of][v.ID] == nil {
			v.rank = v.First
			versions[of][v.ID] = &v
		}
		return versions[of][v.ID]
	}
	for _, v := range known {
		version(v.Source, PolicyVersion{ID: v.ID.String(), Version: v.Version, First: v.First, Seen: v.Seen, Kept: v.Kept})
	}
	of := map[store.PolicySource][]*PolicyReport{}
	for i := range rows {
		row := &rows[i]
		v := version(row.source, PolicyVersion{ID: row.ID, Version: row.Version, First: earlier(row.Since, row.Seen), Seen: row.Seen}) // which the store may not have yet
		v.Processes++
		if v.Seen.Before(row.Seen) {
			v.Seen = row.Seen
		}
		of[row.source] = append(of[row.source], &row.PolicyReport)
	}
	all := Policies{Sources: []PolicySource{}, Policies: []PolicyReport{}, All: len(rows)}
	for source, of := range of {
		all.Sources = append(all.Sources, sourceReport(source, versions[source], of, now))
	}
	slices.SortFunc(all.Sources, func(a, b PolicySource) int {
		return cmp.Or(cmp.Compare(b.Lagging+b.Refusing, a.Lagging+a.Refusing), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Service, b.Service))
	})
	for _, row := range rows {
		all.Policies = append(all.Policies, row.PolicyReport)
	}
	slices.SortFunc(all.Policies, func(a, b PolicyReport) int {
		return cmp.Or(cmp.Compare(b.trouble(), a.trouble()), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Host, b.Host), cmp.Compare(a.PID, b.PID), cmp.Compare(a.ID, b.ID))
	})
	all.Policies = all.Policies[:min(len(all.Policies), maxPoliciesTold)]
	return all
}

func (p *PolicyReport) trouble() int {
	switch {
	case p.Refused != "":
		return 2
	case p.Lags > 0:
		return 1
	}
	return 0
}

// sourceReport says which version of a source is the newest, and which processes lag. A version is as new as when it was seen first or, if that is later, when a process changed
// to it: so that one that is taken back is not the newest any more.
func sourceReport(source store.PolicySource, versions map[string]*PolicyVersion, of []*PolicyReport, now time.Time) PolicySource {
	s := PolicySource{Source: source.Name, Service: source.Service, Processes: len(of), Versions: []PolicyVersion{}}
	times := map[string][]time.Time{} // at which a version came into force, of those that are
	for _, p := range of {
		if p.Refused != "" {
			s.Refusing++
		}
		if now.Sub(p.Seen) > lagAfter {
			continue
		}
		v := versions[p.ID]
		times[p.ID] = append(times[p.ID], v.First)
		if at := earlier(p.Since, p.Seen); p.Changed && at.After(v.First) { // clocks differ
			times[p.ID] = append(times[p.ID], at)
			v.rank = later(v.rank, at)
		}
	}
	for id := range times {
		if n := versions[s.Newest]; n == nil || versions[id].rank.After(n.rank) || versions[id].rank.Equal(n.rank) && id > s.Newest {
			s.Newest = id
		}
	}
	s.Since = cameIn(s.Newest, times, versions)
	for _, p := range of {
		if p.ID != s.Newest && now.Sub(p.Seen) <= lagAfter {
			s.Lagging++
			p.Lags = max(now.Sub(s.Since), 1)
		}
	}
	for _, v := range versions {
		s.Versions = append(s.Versions, *v)
	}
	slices.SortFunc(s.Versions, func(a, b PolicyVersion) int {
		switch s.Newest {
		case a.ID:
			return -1
		case b.ID:
			return 1
		}
		return cmp.Or(b.rank.Compare(a.rank), cmp.Compare(a.ID, b.ID))
	})
	s.Versions = s.Versions[:min(len(s.Versions), maxVersionsTold)]
	return s
}

// cameIn is when the newest version did, after all others.
func cameIn(newest string, times map[string][]time.Time, versions map[string]*PolicyVersion) (since time.Time) {
	var others time.Time
	for id := range times {
		if id != newest {
			others = later(others, versions[id].rank)
		}
	}
	for _, at := range times[newest] {
		if !at.Before(others) && (since.IsZero() || at.Before(since)) {
			since = at
		}
	}
	return since
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// PolicyText is what GET /api/v1/policies/version answers: a version's text.
type PolicyText struct {
	ID      string `json:"id"`
	Version string `json:"version"`         // as it calls itself
	Text    string `json:"text"`            // JSON
	Fault   string `json:"fault,omitempty"` // why this hub's policy package does not take it
	config  *policy.Config
}

// PolicyDiff is what GET /api/v1/policies/diff answers.
type PolicyDiff struct {
	From    PolicyText      `json:"from"`
	To      PolicyText      `json:"to"`
	Changes []policy.Change `json:"changes"` // none if one has a fault
}

// policyVersion reads id.
func (h *Hub) policyVersion(r *http.Request) (any, error) {
	if err := onlyKnown(r.URL.Query(), "id"); err != nil {
		return nil, err
	}
	return h.policyText(r, "id")
}

// policyDiff reads from and to.
func (h *Hub) policyDiff(r *http.Request) (any, error) {
	if err := onlyKnown(r.URL.Query(), "from", "to"); err != nil {
		return nil, err
	}
	var d PolicyDiff
	var err error
	if d.From, err = h.policyText(r, "from"); err != nil {
		return nil, err
	}
	if d.To, err = h.policyText(r, "to"); err != nil {
		return nil, err
	}
	if d.From.config != nil && d.To.config != nil {
		d.Changes = policy.Diff(d.From.config, d.To.config, nil)
	}
	if d.Changes == nil {
		d.Changes = []policy.Change{}
	}
	return d, nil
}

// leastPrefix is how many digits of an ID have to be there.
const leastPrefix = 6

// policyText finds the version that a parameter names by its ID, or how it begins.
func (h *Hub) policyText(r *http.Request, parameter string) (v PolicyText, err error) {
	prefix := strings.ToLower(r.URL.Query().Get(parameter))
	if len(prefix) < leastPrefix || len(prefix) > 2*len(store.PolicyID{}) || strings.Trim(prefix, "0123456789abcdef") != "" {
		return v, badQuestion{fmt.Errorf("%s: %.64q is no version's ID, nor how one begins: %d to %d hex digits", parameter, prefix, leastPrefix, 2*len(store.PolicyID{}))}
	}
	id, text, err := h.store.PolicyText(r.Context(), prefix)
	switch {
	case errors.Is(err, store.ErrNoPolicy):
		return v, notThere{fmt.Errorf("%s: %w", parameter, err)}
	case errors.Is(err, store.ErrManyPolicies):
		return v, badQuestion{fmt.Errorf("%s: %w", parameter, err)}
	case err != nil:
		return v, err
	}
	v = PolicyText{ID: id.String(), Text: text}
	if v.config, err = policy.Parse("", []byte(text)); err != nil {
		v.Fault = err.Error()
		return v, nil
	}
	v.Version = v.config.Stile.Version
	return v, nil
}
