package inforce

import (
	"runtime"
	"testing"
	"time"
)

type thing struct {
	name string
	self *thing // as a policy's parts point back at it
}

// TestAlive: what is alive is told of as it is then, and what is not is forgotten, although it knows itself.
func TestAlive(t *testing.T) {
	tell := func(x *thing) Policy { return Policy{Source: x.name} }
	kept, dropped := &thing{name: "a"}, &thing{name: "b"}
	dropped.self = dropped
	Add(kept, tell)
	Add(dropped, tell)
	kept.name = "c"
	names := map[string]bool{}
	for _, p := range List() {
		names[p.Source] = true
	}
	if len(names) != 2 || !names["b"] || !names["c"] {
		t.Errorf("%v", names)
	}
	runtime.KeepAlive(dropped)
	dropped = nil
	held := func() int {
		alive.mu.Lock()
		defer alive.mu.Unlock()
		return len(alive.tell)
	}
	for begin := time.Now(); held() != 1; runtime.GC() {
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("%d are held", held())
		}
	}
	if all := List(); len(all) != 1 || all[0].Source != "c" {
		t.Errorf("%+v", all)
	}
	runtime.KeepAlive(kept)
}
