package hub

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/stile-ipc/stile/routemap"
)

// TestBrief: a brief map has the map's numbers, and no samples; of a route that is asked for alone it has the evidence.
func TestBrief(t *testing.T) {
	dir := t.TempDir()
	h := openHub(t, Config{Dir: dir})
	for i, to := range []string{"catalog", "pricing"} {
		if err := dial(t, h).Invoke(t.Context(), exportMethod, callSpans(100*i, 10+i, to), new(emptypb.Empty)); err != nil {
			t.Fatal(err)
		}
	}
	closeHub(t, h)
	h = openHub(t, Config{Dir: dir})
	defer closeHub(t, h)
	m := decode[Map](t, get(t, h, "/api/v1/map"))
	answer := get(t, h, "/api/v1/brief")
	b := decode[Brief](t, answer)
	if bytes.Contains(answer.body, []byte(`"samples"`)) {
		t.Errorf("%s", answer.body)
	}
	if len(m.Routes) != 2 || len(b.Routes) != 2 || b.All["routes"] != 2 || b.Spans != m.Spans || len(b.Blocking) != len(m.Blocking) {
		t.Fatalf("%s", answer.body)
	}
	spent := int64(0)
	for _, n := range m.Nodes {
		spent += n.Critical
	}
	for i, r := range m.Routes {
		spent += r.Critical
		got := b.Routes[i]
		if d := r.Duration(); got.ID != r.ID() || got.Evidence != nil || got.Key != r.Key || got.Calls != r.Calls || got.Through != r.Through || got.Duration.Count != d.Count() || got.Duration.P50 != d.Quantile(0.5) || got.Gap.P99 != r.Gap.Quantile(0.99) {
			t.Errorf("%+v, want %+v", got, r)
		}
		alone := decode[Brief](t, get(t, h, "/api/v1/brief?route="+r.ID()))
		if len(alone.Routes) != 1 || alone.Routes[0].Key != r.Key || len(alone.Routes[0].Evidence) == 0 || alone.Spent != b.Spent {
			t.Errorf("%s alone: %+v", r.ID(), alone.Routes)
		}
	}
	if b.Spent != spent {
		t.Errorf("%d ns were spent, want %d", b.Spent, spent)
	}
	if none := decode[Brief](t, get(t, h, "/api/v1/brief?route=0123456789abcdef")); len(none.Routes) != 0 || none.Routes == nil {
		t.Errorf("%+v", none.Routes)
	}
	for _, query := range []string{"route=x", "from=yesterday", "since=5m"} {
		if r := get(t, h, "/api/v1/brief?"+query); r.code != 400 {
			t.Errorf("%s: %d %s", query, r.code, r.body)
		}
	}
}

// TestBriefBounds: of what may be many, a brief map has some, and tells of how many.
func TestBriefBounds(t *testing.T) {
	m := Map{Report: &routemap.Report{}}
	for range briefMost + 7 {
		m.Findings = append(m.Findings, routemap.Finding{})
		m.Paths = append(m.Paths, routemap.HotPath{Hot: true}, routemap.HotPath{})
	}
	b := briefOf(m, "")
	if len(b.Findings) != briefMost || b.All["findings"] != briefMost+7 || len(b.Paths) != briefMost || b.All["paths"] != 2*briefMost+14 {
		t.Errorf("%d findings, %d paths: %v", len(b.Findings), len(b.Paths), b.All)
	}
}
