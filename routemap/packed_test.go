package routemap

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/stile-ipc/stile/telemetry"
)

// filler gives every field another value, also those that are not exported: one that is new and not stored comes back as 0.
type filler struct {
	t *testing.T
	n uint64
}

func (f *filler) fill(v reflect.Value) {
	f.n++
	if !v.CanSet() {
		v = reflect.NewAt(v.Type(), unsafe.Pointer(v.UnsafeAddr())).Elem()
	}
	switch h, is := v.Addr().Interface().(*telemetry.Histogram); {
	case is:
		h.RecordN(int64(f.n), f.n)
		h.Record(int64(1000 * f.n))
		return
	}
	switch v.Kind() {
	case reflect.Uint64:
		v.SetUint(f.n)
	case reflect.Uint8: // Sources
		v.SetUint(f.n % (1 << len(sourceNames)))
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(int64(f.n))
	case reflect.Float64:
		v.SetFloat(float64(f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString(fmt.Sprint("text ", f.n))
	case reflect.Struct:
		for i := range v.NumField() {
			f.fill(v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			f.fill(v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 2 {
			key, of := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(key)
			f.fill(of)
			v.SetMapIndex(key, of)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem())
	default:
		f.t.Fatalf("nobody knows how a %s is filled", v.Type())
	}
}

// TestPackedStats: all fields of a route's stats come back, and what is cut is refused.
func TestPackedStats(t *testing.T) {
	f := &filler{t: t}
	for range 3 {
		s, back := new(Stats), new(Stats)
		f.fill(reflect.ValueOf(s).Elem())
		b := s.appendPacked(nil)
		if err := back.readPacked(b, maxEvidence); err != nil || !reflect.DeepEqual(s, back) {
			t.Fatalf("%+v came back as %+v, %v", s, back, err)
		}
		earlier := []int{len(b) - len(s.appendLater(nil)), len(b) - len(s.Open.appendPacked(nil))}
		for i := range b {
			if err := new(Stats).readPacked(b[:i], maxEvidence); (err == nil) != slices.Contains(earlier, i) {
				t.Errorf("%d of %d bytes: %v", i, len(b), err)
			}
		}
	}
	none := new(Stats)
	if err := none.readPacked(none.appendPacked(nil), maxEvidence); err != nil || !reflect.DeepEqual(none, new(Stats)) {
		t.Errorf("of none: %+v, %v", none, err)
	}
}

// TestPackedRest: all fields of the rest of a map come back, but for those that it is made with, and what is cut is refused.
func TestPackedRest(t *testing.T) {
	f := &filler{t: t}
	m, back := New(), New()
	made := map[string]bool{"rand": true, "routes": true, "paths": true, "first": true, "last": true, "fixed": true, "spare": true, "folded": true} // folded is of a window that is open
	v := reflect.ValueOf(m).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; !made[name] {
			f.fill(v.Field(i))
		}
	}
	nodes := map[Node]*NodeStats{}
	for n, s := range m.nodes {
		s.Processes = 0 // of a report
		nodes[n] = s
	}
	chains := map[string]*Chain{}
	for _, c := range m.chains {
		c.Mean = 0 // of a report
		chains[c.Root] = c
	}
	m.chains = chains
	hosts := map[string]*Others{}
	for _, o := range m.hosts {
		hosts[o.Host] = o
	}
	m.hosts = hosts
	keyed := map[string]*carried{}
	for _, c := range m.carried {
		keyed[chainKey(c.chain)] = c
	}
	m.carried = keyed
	var sum rootSum
	f.fill(reflect.ValueOf(&sum).Elem())
	id := m.paths.id(m.paths.id(-1, "root"), "step")
	m.paths.sums[id], m.paths.roots[0], m.paths.seen = 5, &sum, 7
	m.paths.kept = []record{{0, 8, []part{{0, 3}, {1, 5}}}}
	b := m.appendRest(nil)
	if err := back.readRest(b); err != nil {
		t.Fatal(err)
	}
	w := reflect.ValueOf(back).Elem()
	for i := range v.NumField() {
		if name := v.Type().Field(i).Name; !made[name] && fmt.Sprintf("%#v", deref(v.Field(i))) != fmt.Sprintf("%#v", deref(w.Field(i))) {
			t.Errorf("%s: %v came back as %v", name, deref(v.Field(i)), deref(w.Field(i)))
		}
	}
	p, q := m.paths, back.paths
	for i := range p.all {
		p.all[i].depth = 0 // made when paths are merged
	}
	if !reflect.DeepEqual(p.all, q.all) || !reflect.DeepEqual(p.names, q.names) || !reflect.DeepEqual(p.sums, q.sums) || !reflect.DeepEqual(p.roots, q.roots) || !reflect.DeepEqual(p.kept, q.kept) || p.seen != q.seen {
		t.Errorf("%+v came back as %+v", p, q)
	}
	earlier := len(b) - len(m.appendLater(nil))
	for i := range b {
		if err := New().Load(b[:i]); (err == nil) != (i == earlier) {
			t.Errorf("%d of %d bytes: %v", i, len(b), err)
		}
	}
}

// deref is a value, or of a map its values by key, as text.
func deref(v reflect.Value) any {
	if v.Kind() != reflect.Map || v.Type().Elem().Kind() != reflect.Pointer {
		return fmt.Sprint(v)
	}
	all := map[string]string{}
	for _, k := range v.MapKeys() {
		all[fmt.Sprint(k)] = fmt.Sprintf("%+v", v.MapIndex(k).Elem())
	}
	return all
}

var update = flag.Bool("update", false, "write files of testdata anew")

// TestPackedStays: what an earlier program has stored is read, and says the same.
func TestPackedStays(t *testing.T) {
	m, back := New(), New()
	for _, one := range someTraces(3, 40) {
		m.Add(one)
	}
	for _, of := range []*Map{m, back} {
		of.Between(time.Unix(1e9, 0), time.Unix(1e9+10, 0))
	}
	routes := map[string][]byte{}
	rest, err := m.Store(func(k Key, data []byte) error { routes[k.ID()] = slices.Clone(data); return nil })
	if err != nil {
		t.Fatal(err)
	}
	const path = "testdata/stored.json"
	type file struct {
		Routes map[string][]byte
		Rest   []byte
	}
	if *update {
		text, err := json.Marshal(file{routes, rest})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var has file
	if err := json.Unmarshal(text, &has); err != nil {
		t.Fatal(err)
	}
	for k := range m.routes {
		if err := back.LoadRoute(k, has.Routes[k.ID()]); err != nil {
			t.Error(err)
		}
	}
	if err := back.Load(has.Rest); err != nil {
		t.Fatal(err)
	}
	if got, want := asText(t, back, true), asText(t, m, true); got != want {
		t.Errorf("stored once, %s\nnow, %s", got, want)
	}
}

// FuzzStats: whatever is stored, it is read within what it has, and what can be read is merged and shown.
func FuzzStats(f *testing.F) {
	m := New()
	for _, t := range someTraces(1, 30) {
		m.Add(t)
	}
	rest, err := m.Store(func(_ Key, data []byte) error { f.Add(append([]byte(nil), data...), true); return nil })
	if err != nil {
		f.Fatal(err)
	}
	f.Add(rest, false)
	f.Fuzz(func(t *testing.T, data []byte, route bool) {
		m := New()
		for range 2 {
			if route {
				if m.LoadRoute(Key{Operation: "x"}, data) != nil {
					return
				}
			} else if m.Load(data) != nil {
				return
			}
		}
		m.Report()
		again := New()
		rest, err := m.Store(again.LoadRoute)
		if err == nil {
			err = again.Load(rest)
		}
		if err != nil {
			t.Error(err)
		}
	})
}
