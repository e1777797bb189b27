package hub

import (
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/stile-ipc/stile"
	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/routemap"
)

func policyOf(source, text string) *hubpb.Policy {
	sum := sha256.Sum256([]byte(text))
	return &hubpb.Policy{Source: source, From: "file", Version: "v", Hash: sum[:16], Text: text, SinceUnixNano: time.Now().UnixNano(), Alike: 1}
}

func (r *reporter) inForce(all ...*hubpb.Policy) {
	r.t.Helper()
	r.sequence++
	r.send(&hubpb.ReportRequest{Process: r.is, Hub: r.hub, Sequence: r.sequence, ToUnixNano: int64(10 * time.Second), Policies: all})
}

// TestPoliciesReported: what is in force is asked for by process and by source, with what has changed between two versions, also of a hub that was restarted.
func TestPoliciesReported(t *testing.T) {
	h := openHub(t, Config{})
	agents := agentsOf(t, h)
	front, back := newReporter(t, agents, 1, "front"), newReporter(t, agents, 2, "back")
	const was, is = `{"x-stile": {"version": "a"}, "methodConfig": [{"name": [{"service": "s.S"}], "timeout": "1s"}]}`, `{"x-stile": {"version": "<b>"}, "methodConfig": [{"name": [{"service": "s.S"}], "timeout": "2s"}]}`
	old := policyOf("/etc/p.yaml", was)
	old.SinceUnixNano = time.Now().Add(-time.Hour).UnixNano()
	old.Refused = "line 1: <script>"
	old.Controls = []*hubpb.Control{{Kind: "limit", Method: "/s.S/M", Target: "dns:///s", Limit: 7, Most: 20, InFlight: 3, Pending: 1}, {Kind: "breaker", Method: "/s.S/M", Target: "dns:///s", State: "open"}}
	front.inForce(old, policyOf("", "{}"))
	fresh := policyOf("/etc/p.yaml", is)
	fresh.Changed, fresh.SinceUnixNano = true, time.Now().Add(-3*time.Second).UnixNano()
	back.inForce(fresh)
	h = reopen(t, h)
	defer closeHub(t, h)
	if got := decode[Policies](t, get(t, h, "/api/v1/policies")); len(got.Policies) != 0 || len(got.Sources) != 0 {
		t.Errorf("nobody has reported to it: %+v", got)
	}
	front.again(h)
	back.again(h)
	old.Text, fresh.Text = "", "" // the hub has had them
	front.inForce(old, policyOf("", "{}"))
	back.inForce(fresh)
	got := decode[Policies](t, get(t, h, "/api/v1/policies"))
	if len(got.Policies) != 3 || got.All != 3 || len(got.Sources) != 2 {
		t.Fatalf("%+v", got)
	}
	p, s := got.Policies[0], got.Sources[0]
	if p.Service != "front" || p.Source != "/etc/p.yaml" || p.Refused != old.Refused || p.Lags <= 0 || len(p.Controls) != 2 || p.Controls[0] != (PolicyControl{"limit", "/s.S/M", "dns:///s", "", 7, 20, 3, 1}) || p.Controls[1].State != "open" {
		t.Errorf("%+v", p)
	}
	if s.Source != "/etc/p.yaml" || s.Processes != 2 || s.Lagging != 1 || s.Refusing != 1 || s.Newest != store.PolicyID(fresh.Hash).String() || len(s.Versions) != 2 || !s.Versions[0].Kept || !s.Versions[1].Kept {
		t.Errorf("%+v", s)
	}
	if code := got.Sources[1]; code.Source != "" || code.Service != "front" || code.Lagging != 0 {
		t.Errorf("%+v", code)
	}
	d := decode[PolicyDiff](t, get(t, h, fmt.Sprintf("/api/v1/policies/diff?from=%x&to=%x", old.Hash, fresh.Hash[:3])))
	if d.From.Text != was || d.To.Text != is || d.From.Version != "a" || d.To.Version != "<b>" || len(d.Changes) != 2 || d.Changes[0].Name != "s.S" || d.Changes[0].Before != "1s" || d.Changes[0].After != "2s" {
		t.Errorf("%+v", d)
	}
	if v := decode[PolicyText](t, get(t, h, fmt.Sprintf("/api/v1/policies/version?id=%X", old.Hash))); v.Text != was || v.Fault != "" {
		t.Errorf("%+v", v)
	}
	for path, want := range map[string]int{
		"?x=1": 400, "/diff": 400, "/diff?from=%25%25%25%25%25%25&to=abcdef": 400, "/diff?from=abcdef0123&to=abcdef0123": 404, "/version?id=abc": 400, "/version?id=" + strings.Repeat("a", 33): 400, "/version?id=" + strings.Repeat("a", 32): 404,
	} {
		if reply := get(t, h, "/api/v1/policies"+path); reply.code != want {
			t.Errorf("%s: %d, not %d: %s", path, reply.code, want, reply.body)
		}
	}
}

// TestStrangeText: a text that is no policy is shown as it is, and why it is none.
func TestStrangeText(t *testing.T) {
	h := openHub(t, Config{})
	r := newReporter(t, agentsOf(t, h), 1, "front")
	a, b := policyOf("p", "<img src=x onerror=alert(1)>"), policyOf("p", strings.Repeat("[", maxPolicyText))
	r.inForce(a, b)
	h = reopen(t, h)
	defer closeHub(t, h)
	d := decode[PolicyDiff](t, get(t, h, fmt.Sprintf("/api/v1/policies/diff?from=%x&to=%x", a.Hash, b.Hash)))
	if d.From.Fault == "" || d.To.Fault == "" || d.From.Text != a.Text || d.Changes == nil {
		t.Errorf("%.1000v", d)
	}
}

// TestNewest: the newest version is the one that came into force last, as far as the hub or a process saw it come; who has another lags since then.
func TestNewest(t *testing.T) {
	now := time.Unix(1e9, 0).UTC()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	source := store.PolicySource{Name: "p"}
	known := func(id byte, first time.Duration) store.PolicyVersion {
		return store.PolicyVersion{Policy: store.Policy{Source: source, ID: store.PolicyID{id}}, First: ago(first), Seen: now}
	}
	row := func(id byte, since time.Duration, changed bool, seen time.Duration) policyRow {
		return policyRow{source, PolicyReport{Source: "p", PID: int64(id), ID: store.PolicyID{id}.String(), Since: ago(since), Changed: changed, Seen: ago(seen)}}
	}
	const m, h = time.Minute, time.Hour
	for name, c := range map[string]struct {
		known  []store.PolicyVersion
		rows   []policyRow
		newest byte
		since  time.Duration
		lags   int
	}{
		"all the same":                       {[]store.PolicyVersion{known(1, h)}, []policyRow{row(1, h, false, 0), row(1, m, false, 0)}, 1, h, 0},
		"one has changed":                    {[]store.PolicyVersion{known(1, h), known(2, 2*m)}, []policyRow{row(1, h, false, 0), row(2, 2*m, true, 0)}, 2, 2 * m, 1},
		"one restarted with the old":         {[]store.PolicyVersion{known(1, h), known(2, 30*m)}, []policyRow{row(1, 2*m, false, 0), row(2, 30*m, true, 0)}, 2, 30 * m, 1},
		"taken back by one":                  {[]store.PolicyVersion{known(1, 2*h), known(2, h)}, []policyRow{row(1, 5*m, true, 0), row(2, h, true, 0)}, 1, 5 * m, 1},
		"taken back, and one never left it":  {[]store.PolicyVersion{known(1, 3*h), known(2, h)}, []policyRow{row(1, 2*h, true, 0), row(1, 5*m, true, 0), row(2, h, true, 0)}, 1, 5 * m, 1},
		"a clock ahead":                      {[]store.PolicyVersion{known(1, h), known(2, m)}, []policyRow{row(1, -h, true, 10*time.Second), row(2, m, true, 0)}, 1, 10 * time.Second, 1},
		"a clock behind":                     {[]store.PolicyVersion{known(1, h), known(2, m)}, []policyRow{row(1, h, false, 0), row(2, 5*h, true, 0)}, 2, m, 1},
		"who is gone is not the newest":      {[]store.PolicyVersion{known(1, h), known(2, 5*m)}, []policyRow{row(1, h, false, 0), row(2, 5*m, true, 2*m)}, 1, h, 0},
		"who is gone does not lag":           {[]store.PolicyVersion{known(1, h), known(2, 5*m)}, []policyRow{row(1, h, false, 2*m), row(2, 5*m, true, 0)}, 2, 5 * m, 0},
		"seen before it is on disk":          {[]store.PolicyVersion{known(1, h)}, []policyRow{row(1, h, false, 0), row(2, time.Second, true, 0)}, 2, time.Second, 1},
		"a version that nobody has any more": {[]store.PolicyVersion{known(1, h), known(2, m)}, []policyRow{row(1, h, false, 0)}, 1, h, 0},
	} {
		got := policiesOf(c.rows, c.known, now)
		s := got.Sources[0]
		if s.Newest != (store.PolicyID{c.newest}).String() || !s.Since.Equal(ago(c.since)) || s.Lagging != c.lags {
			t.Errorf("%s: the newest is %s since %s, %d lag", name, s.Newest[:2], now.Sub(s.Since), s.Lagging)
		}
		for _, p := range got.Policies {
			if want := max(c.since, 1); p.Lags != 0 && (p.ID == s.Newest || p.Lags != want) {
				t.Errorf("%s: %s lags %s", name, p.ID[:2], p.Lags)
			}
		}
	}
}

// TestBadPolicies: what contradicts itself, or is too much, is refused.
func TestBadPolicies(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	agents := agentsOf(t, h)
	with := func(change func(*hubpb.Policy)) []*hubpb.Policy {
		p := policyOf("p", "{}")
		p.Controls = []*hubpb.Control{{Kind: "limit"}}
		change(p)
		return []*hubpb.Policy{p}
	}
	long := strings.Repeat("x", maxReportName+1)
	for name, all := range map[string][]*hubpb.Policy{
		"source": with(func(p *hubpb.Policy) { p.Source = long }), "version": with(func(p *hubpb.Policy) { p.Version = long }), "from": with(func(p *hubpb.Policy) { p.From = long }),
		"hash": with(func(p *hubpb.Policy) { p.Hash = p.Hash[1:] }), "another's": with(func(p *hubpb.Policy) { p.Text = "{ }" }), "text": with(func(p *hubpb.Policy) {
			q := policyOf("p", strings.Repeat("x", maxPolicyText+1))
			p.Text, p.Hash = q.Text, q.Hash
		}),
		"reason": with(func(p *hubpb.Policy) { p.Refused = strings.Repeat("x", maxPolicyRefused+1) }), "since": with(func(p *hubpb.Policy) { p.SinceUnixNano = -1 }), "none": with(func(p *hubpb.Policy) { p.Alike = 0 }),
		"kind": with(func(p *hubpb.Policy) { p.Controls[0].Kind = long }), "method": with(func(p *hubpb.Policy) { p.Controls[0].Method = long }), "state": with(func(p *hubpb.Policy) { p.Controls[0].State = long }),
		"limit": with(func(p *hubpb.Policy) { p.Controls[0].Limit = math.MaxUint64 }), "pending": with(func(p *hubpb.Policy) { p.Controls[0].Pending = math.MaxUint64 }),
		"controls": with(func(p *hubpb.Policy) { p.Controls = make([]*hubpb.Control, maxReportControls+1) }), "policies": make([]*hubpb.Policy, maxReportPolicies+1),
	} {
		for i := range all {
			if all[i] == nil {
				all[i] = policyOf("p", "{}")
			}
			for n := range all[i].Controls {
				if all[i].Controls[n] == nil {
					all[i].Controls[n] = &hubpb.Control{}
				}
			}
		}
		_, err := agents.Report(t.Context(), &hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(1, 16), Service: "front"}, Sequence: 1, Hub: h.agents.self[:], Policies: all})
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := decode[Policies](t, get(t, h, "/api/v1/policies")); got.All != 0 {
		t.Errorf("%+v", got)
	}
}

// TestControlsRoom: breakers and limits that say nothing take their room, too.
func TestControlsRoom(t *testing.T) {
	a := newAgents(time.Now)
	p := policyOf("p", "{}")
	for range maxReportControls {
		p.Controls = append(p.Controls, &hubpb.Control{})
	}
	const room = maxPoliciesBytes / (maxReportControls * partBytes)
	for n := range uint64(room + 20) {
		r := &hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(n, 16), Service: "s"}, Hub: a.self[:], Sequence: 1, Policies: []*hubpb.Policy{p}}
		if _, _, err := a.take(r, 0); err != nil {
			t.Fatal(err)
		}
	}
	if left := a.status().LeftOut; left < 20 || left > 40 {
		t.Errorf("%d of %d left out", left, room+20)
	}
}

// TestPoliciesRoom: what processes have in force takes no more memory than there is for it, and comes free with them.
func TestPoliciesRoom(t *testing.T) {
	now := time.Now()
	a := newAgents(func() time.Time { return now })
	report := func(n, sequence uint64, policies int) {
		t.Helper()
		r := &hubpb.ReportRequest{Process: &hubpb.Process{Identity: id(n, 16), Service: "s"}, Hub: a.self[:], Sequence: sequence}
		for i := range policies {
			p := policyOf(fmt.Sprint(n, i), "{}")
			p.Refused = strings.Repeat("x", maxPolicyRefused)
			r.Policies = append(r.Policies, p)
		}
		if _, _, err := a.take(r, 0); err != nil {
			t.Fatal(err)
		}
	}
	const each = 64 * (maxPolicyRefused + 2*partBytes)
	for n := range uint64(maxPoliciesBytes/each + 20) {
		report(n, 1, 64)
	}
	rows := len(a.policies())
	if s := a.status(); s.LeftOut < 20 || a.policyBytes > maxPoliciesBytes || rows*maxPolicyRefused > maxPoliciesBytes {
		t.Errorf("%+v, %d bytes, %d rows", s, a.policyBytes, rows)
	}
	report(0, 2, 1)
	report(maxPoliciesBytes/each+19, 2, 32)
	if left := a.status().LeftOut; len(a.policies()) != rows-64+1+32 {
		t.Errorf("%d rows, of %d; %d left out", len(a.policies()), rows, left)
	}
	versions := a.draw(routemap.New(), time.Time{}, true).policies
	if len(versions) == 0 || len(versions) > maxWindowPolicies {
		t.Errorf("%d versions", len(versions))
	}
}

// TestPoliciesTold: a process that reports tells of a policy that it follows, of the version that it refuses, and of the breakers that it holds, by itself.
func TestPoliciesTold(t *testing.T) {
	h := openHub(t, Config{})
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		aside := path + ".new" // renamed, as who looks at the file may not see half of it
		if err := os.WriteFile(aside, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(aside, path); err != nil {
			t.Fatal(err)
		}
	}
	write("x-stile: {version: good}\nmethodConfig:\n- name: [{}]\n  timeout: 1s\n  x-stile: {breaker: {}}\n")
	p, err := policy.Open(path, policy.WithoutLastGood(), policy.WithPollInterval(time.Millisecond), policy.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	stop, err := stile.ReportTo(h.Addrs()[forOTLPGRPC])
	if err != nil {
		t.Fatal(err)
	}
	write("x-stile: {version: bad}\nmethodConfig:\n- name: [{}]\n  timeout: 250ms\n")
	for begin := time.Now(); p.Status().Error == ""; time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			t.Fatal("the file is not looked at")
		}
	}
	cc, err := stile.NewClient("passthrough:///nobody", stile.WithPolicy(p), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	if _, err := hubpb.NewAgentsClient(cc).Report(t.Context(), &hubpb.ReportRequest{}); err == nil {
		t.Error("nobody has answered")
	}
	stop(t.Context())
	got := decode[Policies](t, get(t, h, "/api/v1/policies"))
	at := slices.IndexFunc(got.Policies, func(p PolicyReport) bool { return p.Source == path })
	if at < 0 {
		t.Fatalf("%+v", got)
	}
	one := got.Policies[at]
	if one.Version != "good" || one.From != "file" || !strings.Contains(one.Refused, "250ms") || len(one.Controls) != 1 || one.Controls[0].State != "closed" || one.Controls[0].Method != "/stile.hub.v1.Agents/Report" {
		t.Errorf("%+v", one)
	}
	h = reopen(t, h)
	defer closeHub(t, h)
	if v := decode[PolicyText](t, get(t, h, "/api/v1/policies/version?id="+one.ID)); v.Version != "good" || v.Fault != "" {
		t.Errorf("%+v", v)
	}
}
