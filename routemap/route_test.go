package routemap

import (
	"encoding/json"
	"testing"
)

// TestKeyID: keys that differ have other IDs, and an ID does not change from one version to the next.
func TestKeyID(t *testing.T) {
	k := Key{Node{Service, "front"}, Node{Service, "catalog"}, SHM, "shop.Catalog/Get", Sync}
	if id := k.ID(); id != "cce2e324ede88b51" {
		t.Errorf("it is %s", id)
	}
	others := []Key{{}, k, k, k, k, k, k, k, k}
	others[2].From.Kind = Process
	others[3].From.Name = "fron"
	others[4].To = Node{External, "catalog"}
	others[5].Transport, others[5].Operation = "", SHM+k.Operation
	others[6].Mode = Async
	others[7].From.Name, others[7].To.Kind = "frontservice", ""
	others[8].Operation = "shop.Catalog"
	seen := map[string]Key{}
	for _, o := range others {
		if same, is := seen[o.ID()]; is {
			t.Errorf("%+v has the ID of %+v", o, same)
		}
		seen[o.ID()] = o
	}
	text, err := json.Marshal(Route{k, &Stats{Calls: 1}})
	if err != nil {
		t.Fatal(err)
	}
	var back struct{ ID string }
	if err := json.Unmarshal(text, &back); err != nil || back.ID != k.ID() {
		t.Errorf("%s: %v", text, err)
	}
}
