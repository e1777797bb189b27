package hub

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// TestMapTwice: the same windows are the same map, whatever is drawn of their samples, each time that it is asked for.
func TestMapTwice(t *testing.T) {
	h := openHub(t, Config{})
	defer closeHub(t, h)
	begin := time.Now().Add(-time.Hour).Truncate(time.Minute)
	r := rand.New(rand.NewPCG(1, 2))
	for w := range 24 {
		m := routemap.New()
		for i := range 1600 {
			trace, took := fmt.Sprintf("%d-%d", w, i), r.Int64N(1e9)
			spans := []routemap.Span{{Trace: trace, ID: 1, Kind: routemap.Client, Service: "front", Name: fmt.Sprint("op", i%8), Peer: "back", PeerKind: routemap.External, Start: 1000, End: 1000 + took}}
			if w == 7 { // by which the others know that it is a service
				spans = append(spans, routemap.Span{Trace: trace, ID: 2, Parent: 1, Kind: routemap.Server, Service: "back", Name: fmt.Sprint("op", i%8), Start: 1000, End: 1000 + took/2})
			}
			m.Add(routemap.NewTrace(spans))
		}
		if err := h.store.Put(t.Context(), begin.Add(time.Duration(w)*store.Finest), m, nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	said := func() string {
		m, err := h.Map(t.Context(), begin, begin.Add(4*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if m.Windows != 24 || len(m.Routes) != 8 || len(m.Routes[0].Samples) < 500 {
			t.Fatalf("%d windows, %d routes", m.Windows, len(m.Routes))
		}
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	first := said()
	for range 3 {
		if said() != first {
			t.Fatal("the second answer is another one")
		}
	}
}
