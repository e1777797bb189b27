package hub

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

// TestEncoded: a map is written as json.Marshal writes it, but for the order of fields.
func TestEncoded(t *testing.T) {
	for _, n := range []int{0, 1, 2, 3, 100} {
		m := routemap.New()
		for i := range n {
			m.Add(routemap.NewTrace([]routemap.Span{{Trace: fmt.Sprint(i), ID: 1, Kind: routemap.Client, Service: "front", Name: "Get", Peer: fmt.Sprint("p", i), Start: 1, End: 5, Request: -1, Response: -1}}))
		}
		one := Map{m.Report(), map[string]uint64{FarOff: 3}, 2, 1}
		var got, want any
		text, err := encoded{one}.encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		plain, err := json.Marshal(one)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(plain, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%d routes: %s, want %s", n, text, plain)
		}
	}
}
