package stile

import (
	"bytes"
	"flag"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write golden files")

// maxExported is how many names the root package may export.
const maxExported = 60

// TestAPI compares the exported names of the packages for users, with their types, with
// api/*.txt. A change of such a file is a change that users see.
func TestAPI(t *testing.T) {
	for dir, file := range map[string]string{".": "stile.txt", "policy": "policy.txt", "queue": "queue.txt", "telemetry/otelmetric": "otelmetric.txt"} {
		lines, names := exportedAPI(t, dir)
		if dir == "." && names > maxExported {
			t.Errorf("%d exported names, at most %d", names, maxExported)
		}
		got := strings.Join(lines, "\n") + "\n"
		path := filepath.Join("api", file)
		if *update {
			if err := os.MkdirAll("api", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("the API differs from %s; if it should, run go test -run TestAPI -update .\ngot:\n%s", path, got)
		}
	}
}

// exportedAPI returns a line for each exported function, method and type of the package
// in dir, sorted, and how many names it exports without methods.
func exportedAPI(t *testing.T, dir string) (lines []string, names int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.FileExports(f)
		for _, d := range f.Decls {
			var buf bytes.Buffer
			if fn, ok := d.(*ast.FuncDecl); ok {
				fn.Body = nil
				if fn.Recv == nil {
					names++
				} else if !exportedReceiver(fn) {
					continue
				}
			} else if g := d.(*ast.GenDecl); g.Tok == token.IMPORT {
				continue
			} else {
				names += len(g.Specs)
			}
			if err := format.Node(&buf, fset, d); err != nil {
				t.Fatal(err)
			}
			lines = append(lines, strings.Join(strings.Fields(buf.String()), " "))
		}
	}
	sort.Strings(lines)
	return lines, names
}
