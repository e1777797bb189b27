package stile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
)

// grpcSource returns the folder of the grpc-go that this test is built with.
func grpcSource(t *testing.T) string {
	t.Helper()
	pc := reflect.ValueOf(grpc.NewServer).Pointer()
	file, _ := runtime.FuncForPC(pc).FileLine(pc)
	dir := filepath.Dir(file)
	if _, err := os.Stat(filepath.Join(dir, "server.go")); err != nil {
		t.Fatalf("no source of grpc-go (is this built with -trimpath?): %v", err)
	}
	return dir
}

// grpcPackage is one parsed public package of grpc-go.
type grpcPackage struct {
	name  string // as written in front of its identifiers; "" for the root
	files []*ast.File
}

// grpcPackages parses all public packages of grpc-go's main module.
func grpcPackages(t *testing.T) []grpcPackage {
	t.Helper()
	root := grpcSource(t)
	byDir := map[string]*grpcPackage{}
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, other := os.Stat(filepath.Join(path, "go.mod"))
			if path != root && (other == nil || d.Name() == "internal" || d.Name() == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		dir := filepath.Dir(path)
		if byDir[dir] == nil {
			byDir[dir] = &grpcPackage{name: f.Name.Name}
			dirs = append(dirs, dir)
		}
		byDir[dir].files = append(byDir[dir].files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	byDir[root].name = ""
	var out []grpcPackage
	for _, dir := range dirs {
		if byDir[dir].name != "main" {
			out = append(out, *byDir[dir])
		}
	}
	return out
}

// constructors names every exported function of grpc-go that returns a
// grpc.<option>, alone or in a slice.
func constructors(t *testing.T, option string) []string {
	t.Helper()
	var out []string
	for _, p := range grpcPackages(t) {
		for _, f := range p.files {
			for _, d := range f.Decls {
				fn, ok := d.(*ast.FuncDecl)
				if !ok || !fn.Name.IsExported() || fn.Type.Results == nil || !exportedReceiver(fn) {
					continue
				}
				for _, r := range fn.Type.Results.List {
					if isGrpcType(r.Type, option, p.name == "") {
						out = append(out, strings.TrimPrefix(p.name+"."+fn.Name.Name, "."))
					}
				}
			}
		}
	}
	slices.Sort(out)
	if len(out) < 10 {
		t.Fatalf("only %d constructors of %s found in grpc-go's source", len(out), option)
	}
	return out
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	switch generic := typ.(type) {
	case *ast.IndexExpr:
		typ = generic.X
	case *ast.IndexListExpr:
		typ = generic.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && id.IsExported()
}

func isGrpcType(e ast.Expr, name string, inRoot bool) bool {
	switch e := e.(type) {
	case *ast.ArrayType:
		return isGrpcType(e.Elt, name, inRoot)
	case *ast.Ident:
		return inRoot && e.Name == name
	case *ast.SelectorExpr:
		pkg, ok := e.X.(*ast.Ident)
		return ok && pkg.Name == "grpc" && e.Sel.Name == name
	}
	return false
}

// callOptionTypes names every type of grpc-go's root package that has a before
// method of its own or embeds EmptyCallOption: all that can be a CallOption.
func callOptionTypes(t *testing.T) []string {
	t.Helper()
	seen := map[string]bool{}
	for _, p := range grpcPackages(t) {
		if p.name != "" {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.FuncDecl:
					if n.Name.Name == "before" && n.Recv != nil {
						seen[receiverName(n)] = true
					}
				case *ast.TypeSpec:
					st, ok := n.Type.(*ast.StructType)
					if !ok {
						return true
					}
					for _, field := range st.Fields.List {
						if id, ok := field.Type.(*ast.Ident); ok && len(field.Names) == 0 && id.Name == "EmptyCallOption" {
							seen[n.Name.Name] = true
						}
					}
				}
				return true
			})
		}
	}
	var out []string
	for name := range seen {
		out = append(out, name)
	}
	slices.Sort(out)
	if len(out) < 10 {
		t.Fatalf("only %d call options found in grpc-go's source", len(out))
	}
	return out
}

func receiverName(fn *ast.FuncDecl) string {
	typ := fn.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if id, ok := typ.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
