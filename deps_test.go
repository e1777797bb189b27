package stile

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// lattice lists the packages of this module, lowest first, with those of the
// module that each may import. Adding a line is a decision about the house.
const lattice = `
transport/wire            :
transport                 : transport/wire
transport/transporttest   : transport transport/wire
transport/inproc          : transport transport/wire
transport/sock            : transport transport/wire
transport/shm             : transport transport/wire
transport/local           : transport transport/wire transport/sock transport/shm
internal/filelock         :
internal/xdg              :
internal/packed           :
internal/procfs           :
internal/usage            :
internal/inforce          :
internal/values           :
telemetry                 : internal/packed
telemetry/otelmetric      : telemetry
internal/lazyctx          : telemetry
policy/control            :
policy/internal/near      :
policy/policytest         :
policy                    : telemetry internal/inforce internal/lazyctx internal/xdg policy/control policy/internal/near
hub/hubpb                 :
internal/spans            : telemetry internal/values
internal/agent            : telemetry internal/inforce internal/spans internal/usage internal/values hub/hubpb
.                         : policy internal/inforce internal/lazyctx internal/agent internal/spans internal/values telemetry transport transport/wire transport/shm transport/local
queue/internal/redo       :
queue/embedded            : internal/filelock
queue                     : policy/control queue/embedded queue/internal/redo telemetry
routemap                  : internal/packed telemetry
routemap/semconv          : routemap telemetry
routemap/tracefile        : routemap routemap/semconv
hostmap                   : routemap internal/procfs internal/usage
hub/internal/store        : internal/filelock internal/packed routemap
hub/web                   :
hub                       : . internal/agent internal/procfs internal/usage policy hub/internal/store hub/hubpb hub/web queue queue/embedded routemap routemap/tracefile telemetry
cmd/stile/internal/terminal :
cmd/stile/internal/measure : internal/procfs
cmd/stile/internal/demo   : . cmd/stile/internal/measure cmd/stile/internal/terminal
cmd/stile/internal/bench  : . cmd/stile/internal/measure cmd/stile/internal/terminal
cmd/stile/internal/protos :
cmd/stile/internal/top    : hub routemap
cmd/stile                 : . internal/xdg policy queue hostmap hub routemap routemap/tracefile cmd/stile/internal/protos cmd/stile/internal/bench cmd/stile/internal/demo cmd/stile/internal/terminal cmd/stile/internal/top
`

// fences lists imports that only some packages may have.
var fences = []struct {
	prefix string
	only   []string
	why    string
}{
	{"google.golang.org/grpc", []string{".", "policy", "policy/policytest", "internal/lazyctx", "hub", "hub/hubpb", "internal/agent", "cmd/stile", "cmd/stile/internal/bench"}, "grpc-go is the root package's affair, and what it is compared with"},
	{"unsafe", []string{"transport/shm", ".", "hub/hubpb"}, "raw memory is transport/shm's; the root has opaque.go"},
	{"reflect", []string{".", "policy", "transport/transporttest", "hub/hubpb"}, "nothing on a path of bytes reflects"},
	{"github.com/jhump", []string{"cmd/stile/internal/bench"}, "only who calls unknown methods asks what they are"},
	{"go.yaml.in/yaml", []string{"policy"}, "files for people are the policy's"},
	{"github.com/bufbuild/protocompile", []string{"cmd/stile/internal/protos"}, "only the command reads .proto files"},
	{"github.com/nats-io", []string{"queue", "queue/embedded"}, "queues are NATS's affair, and nobody else's"},
	{"github.com/vishvananda", []string{"hostmap"}, "sockets of other processes are hostmap's affair"},
	{"go.opentelemetry.io/otel/sdk", []string{"telemetry/otelmetric"}, "an SDK is the user's; one package speaks to it"},
	{"github.com/prometheus", []string{"hub"}, "what Prometheus is told is the hub's affair"},
	{"modernc.org", []string{"hub/internal/store"}, "the hub's file is a database; nobody else's is"},
	{"github.com/spf13", []string{"cmd/stile"}, "command lines belong to the command"},
	{"charm.land", []string{"cmd/stile/internal/top"}, "screens in a terminal are top's affair"},
	{"github.com/charmbracelet/bubbletea", nil, "its v1 asks the terminal for its colours before main begins; v2 is charm.land/bubbletea/v2"},
	{"github.com/charmbracelet", []string{"cmd/stile/internal/top"}, "screens in a terminal are top's affair"},
}

const modulePath = "github.com/stile-ipc/stile"

func TestLattice(t *testing.T) {
	allowed := map[string]map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(lattice), "\n") {
		name, imports, _ := strings.Cut(line, ":")
		set := map[string]bool{}
		for _, i := range strings.Fields(imports) {
			set[i] = true
		}
		allowed[strings.TrimSpace(name)] = set
	}
	for _, i := range moduleImports(t) {
		set, known := allowed[i.pkg]
		if !known {
			t.Errorf("package %s (%s) is not in the lattice: say where it stands", i.pkg, i.file)
			continue
		}
		if rest, ours := strings.CutPrefix(i.path, modulePath); ours {
			if to := strings.TrimPrefix(rest, "/"); !set[dotted(to)] {
				t.Errorf("%s imports %s, which the lattice does not allow %s", i.file, dotted(to), i.pkg)
			}
			continue
		}
		for _, f := range fences {
			if within(i.path, f.prefix) && !contains(f.only, i.pkg) {
				t.Errorf("%s imports %s: %s", i.file, i.path, f.why)
			}
		}
		if i.path == "unsafe" && i.pkg == "." && i.file != "opaque.go" {
			t.Errorf("%s imports unsafe: in this package only opaque.go may", i.file)
		}
	}
}

func dotted(pkg string) string {
	if pkg == "" {
		return "."
	}
	return pkg
}

func within(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

type importLine struct{ pkg, file, path string }

// moduleImports reads the imports of every file of this module that is not a
// test, on every platform.
func moduleImports(t *testing.T) []importLine {
	t.Helper()
	var out []importLine
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			switch d.Name() {
			case "testdata", "examples", "bench", "compat", "bin", "docs", ".git", "fakeshop", "node_modules":
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(path))
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			out = append(out, importLine{pkg, filepath.ToSlash(path), p})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 50 {
		t.Fatalf("only %d imports found: the test looks in the wrong place", len(out))
	}
	return out
}
