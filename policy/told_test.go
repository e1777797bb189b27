package policy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stile-ipc/stile/internal/inforce"
)

// toldOf is what is told of the policies of a source.
func toldOf(source string) []inforce.Policy {
	return slices.DeleteFunc(inforce.List(), func(p inforce.Policy) bool { return p.Source != source })
}

// TestTold: what is told of a file is what is in force, why a later version is not, and the same name for the same rules however they are written.
func TestTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		write("x-stile: {version: a}\nmethodConfig:\n- name: [{service: s.S}]\n  timeout: 1s\n")
		p, err := Open(path, WithoutLastGood())
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		now := func() inforce.Policy {
			t.Helper()
			time.Sleep(3 * time.Second)
			all := toldOf(path)
			if len(all) != 1 {
				t.Fatalf("%+v", all)
			}
			return all[0]
		}
		first := now()
		if first.From != "file" || first.Version != "a" || first.Changed || first.Refused != "" || !first.Since.Equal(began) || !strings.Contains(first.Text, `"timeout": "1s"`) {
			t.Errorf("%+v", first)
		}
		c, err := Parse("other.yaml", []byte(`{"methodConfig": [{"timeout": "1s", "name": [{"service": "s.S"}]}], "x-stile": {"version": "a"}}`))
		if err != nil {
			t.Fatal(err)
		}
		other := New(c)
		if same := toldOf("other.yaml"); len(same) != 1 || same[0].Hash != first.Hash || same[0].Text != first.Text || same[0].From != "api" {
			t.Errorf("%+v is not %+v", same, first)
		}
		defer other.Close()

		write("x-stile: {version: b}\nmethodConfig:\n- name: [{service: s.S}]\n  timeout: 250ms\n")
		if bad := now(); bad.Version != "a" || bad.Hash != first.Hash || bad.Changed || !strings.Contains(bad.Refused, "250ms") {
			t.Errorf("%+v", bad)
		}
		write("x-stile: {version: b}\n")
		if good := now(); good.Version != "b" || good.Hash == first.Hash || !good.Changed || good.Refused != "" || !good.Since.After(began) {
			t.Errorf("%+v", good)
		}
	})
}

// TestToldCopy: a program that runs on the last good copy says so, and why.
func TestToldCopy(t *testing.T) {
	path, dir := filepath.Join(t.TempDir(), "policy.yaml"), t.TempDir()
	if err := (copies{dir: dir}).save(path, "x-stile: {version: old}"); err != nil {
		t.Fatal(err)
	}
	p, err := Open(path, WithLastGoodDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	all := toldOf(path)
	if len(all) != 1 || all[0].From != string(SourceLastGood) || all[0].Version != "old" || all[0].Refused == "" || all[0].Changed {
		t.Errorf("%+v", all)
	}
}
