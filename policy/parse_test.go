package policy

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: go test -update writes what is now so:\n%s", path, changedLines(string(want), got))
	}
}

func changedLines(want, got string) string {
	in := map[string]int{}
	for line := range strings.Lines(want) {
		in[line]--
	}
	for line := range strings.Lines(got) {
		in[line]++
	}
	var b strings.Builder
	for line := range strings.Lines(want + got) {
		if n := in[line]; n != 0 {
			fmt.Fprintf(&b, "%c %s", map[bool]rune{true: '+', false: '-'}[n > 0], line)
			in[line] = 0
		}
	}
	return b.String()
}

func filesIn(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", dir, "*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/%s: %v", dir, err)
	}
	return files
}

func load(t testing.TB, name string) *Config {
	t.Helper()
	c, err := Load(filepath.Join("testdata", "valid", name))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func parse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Each malformed file has one error, which is as the golden file has it: people have
// read those.
func TestMalformed(t *testing.T) {
	files := filesIn(t, "malformed")
	if len(files) < 200 {
		t.Errorf("only %d files", len(files))
	}
	var all strings.Builder
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Base(file)
		c, err := Parse(name, data)
		var faults Problems
		if !errors.As(err, &faults) {
			t.Errorf("%s: taken, or no Problems: %v", name, err)
			continue
		}
		if c != nil {
			t.Errorf("%s: gives a Config beside the error", name)
		}
		n := 0
		for _, p := range faults {
			if p.Rule == "" { // the others are warnings
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: %d errors for one fault:\n%v", name, n, err)
		}
		all.WriteString(err.Error() + "\n")
	}
	golden(t, "malformed", all.String())
}

// All faults of a file are told at once, in its order.
func TestAllFaultsAtOnce(t *testing.T) {
	_, err := Parse("p.yaml", []byte(`x-stile: {versoin: 1}
methodConfig:
- name: [{service: a.B}]
  timeout: 250ms
- name: [{service: a.B}]
  retryPolicy: {maxAttempts: 1}
`))
	var faults Problems
	if !errors.As(err, &faults) {
		t.Fatal(err)
	}
	var lines []int
	for _, f := range faults {
		lines = append(lines, f.Line)
	}
	if got := fmt.Sprint(lines); got != "[1 4 5 6 6 6 6 6]" {
		t.Errorf("faults in lines %s:\n%v", got, err)
	}
}

// What is large takes no more than linear time, or the test's own limit ends it.
func TestLarge(t *testing.T) {
	many := func(format string) string {
		var b strings.Builder
		for i := 0; b.Len() < maxFileSize-200; i++ {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	for name, text := range map[string]string{
		"names":   "methodConfig:\n- name:\n" + many("  - {service: a.S%d}\n"),
		"entries": "methodConfig:\n" + many("- {name: [{service: a.S%d}], timeout: 1s}\n"),
		"faults":  "methodConfig:\n" + many("- {name: [{service: a.S%d}], timeout: 1}\n"),
		"keys":    "x-stile:\n" + many("  k%d: 1\n"),
		"aliases": "methodConfig:\n- &m {name: [{service: a.S}], " + many("k%d: 1, ")[:maxFileSize/2] + "k: 1}\n" + strings.Repeat("- *m\n", maxFileSize/12),
		"fields":  "methodConfig: [{name: [{}], x-stile: {cache: {ttl: 1s, keyFields: [" + many("f%d, ") + "f]}}}]",
		"a key":   "x-stile: {" + strings.Repeat("k", maxFileSize-100) + ": 1}",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Parse(name, []byte(text))
			if err != nil {
				if n := len(err.(Problems)); n > maxFaults+1 {
					t.Errorf("%d faults told", n)
				}
				return
			}
			Lint(c, nil)
			if d := Diff(c, c, nil); d != nil {
				t.Error(d[0])
			}
		})
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"methodConfigs: []", "p.yaml:1:1: methodConfigs: is not a key of gRPC's service config (did you mean methodConfig?); gRPC passes it over"},
		{"methodConfig: [{timeout: 1s}]", "methodConfig[0]: has no name"},
		{"methodConfig: [{name: [{}], retryPolicy: {maxAttempts: 6, initialBackoff: 1s, maxBackoff: 1s, backoffMultiplier: 1, retryableStatusCodes: [OK]}}]", "gRPC makes 5 at most"},
		{"methodConfig: [{name: [{}], hedgingPolicy: {maxAttempts: 2}}]", "passed over by grpc-go"},
	} {
		var texts []string
		for _, w := range parse(t, c.text).Warnings {
			texts = append(texts, w.Error())
		}
		if got := strings.Join(texts, "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%s\n got %q, want %q", c.text, got, c.want)
		}
	}
	if w := load(t, "shop.yaml").Warnings; w != nil {
		t.Errorf("warnings without a reason: %v", w)
	}
}

// null is as if the key were not there: defaults hold.
func TestNull(t *testing.T) {
	for _, text := range []string{
		"x-stile:", "x-stile: null", "x-stile: {defaultTimeout: null, retryBudget: ~}", "a: &n null\nx-stile: *n", "a: &n null\nx-stile: {defaultTimeout: *n, retryBudget: *n}",
		"a: &n null\nmethodConfig: [{name: [{}], maxRequestMessageBytes: *n, timeout: *n}]",
	} {
		c := parse(t, text)
		if want := Default().Stile; c.Stile != want {
			t.Errorf("%q: %+v, want %+v", text, c.Stile, want)
		}
	}
	b := parse(t, "methodConfig: [{name: [{}], x-stile: {breaker: {slidingWindowSize: null}}}]").MethodConfig[0].Stile.Breaker
	if b.SlidingWindowSize != 100 {
		t.Errorf("slidingWindowSize is %d", b.SlidingWindowSize)
	}
}

// JSON's escapes for characters beyond 16 bits are read, which YAML does not know.
func TestSurrogates(t *testing.T) {
	for text, want := range map[string]string{
		`{"x-stile": {"owner": "a \ud83d\ude00 b"}}`:   "a 😀 b",
		`{"x-stile": {"owner": "\\ud83d\ude00"}}`:      `\ud83d` + "\ufffd",
		`{"x-stile": {"owner": "\ud83d"}}`:             "\ufffd",
		`{"x-stile": {"owner": "\ud83d\u0041"}}`:       "\ufffdA",
		`{"x-stile": {"owner": "\"\ud83d\ude00\\\""}}`: `"😀\"`,
		`{"x-stile": {"owner": "\u00e9\/\t"}}`:         "é/\t",
	} {
		if got := parse(t, text).Stile.Owner; got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// Nothing in a file can command the terminal that shows its faults.
func TestPrintable(t *testing.T) {
	_, err := Parse("a\nb", []byte(`"x-stile": {"\e[2J": 1, "owner": !!int "\e[3J"}`))
	if err == nil || strings.ContainsAny(strings.ReplaceAll(err.Error(), "\n", ""), "\x1b\a") || len(strings.Split(err.Error(), "\n")) != len(err.(Problems)) {
		t.Errorf("%q", err)
	}
}

func TestLoad(t *testing.T) {
	if _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	big := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(big, bytes.Repeat([]byte("# nothing\n"), maxFileSize/10+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(big); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("a file that is too large: %v", err)
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]Duration{"1s": Second, "0.25s": Second / 4, ".5s": Second / 2, "1.s": Second, "0.000000001s": 1, "-1.5s": -3 * Second / 2} {
		var d, again Duration
		if err := d.parse(text); err != nil || d != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		if err := again.parse(d.String()); err != nil || again != d {
			t.Errorf("%s is written %s, which reads %v, %v", text, d, again, err)
		}
	}
	for text, want := range map[string]Size{"0": 0, "1": 1, "1000": 1000, "16MiB": 16 << 20, "3 KiB": 3 << 10, "2kB": 2000, "5B": 5} {
		var s, again Size
		if err := s.parse(text); err != nil || s != want {
			t.Errorf("%s: %v, %v", text, s, err)
		}
		if err := again.parse(s.String()); err != nil || again != s {
			t.Errorf("%s is written %s, which reads %v, %v", text, s, again, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, dir := range []string{"valid", "malformed"} {
		for _, file := range filesIn(f, dir) {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			for _, p := range err.(Problems) {
				if p.Text == "" || strings.ContainsFunc(p.Error(), unicode.IsControl) {
					t.Errorf("an error that nobody can read: %q", p.Error())
				}
			}
			return
		}
		// What is taken can be exported, and reads the same again.
		again, err := Parse("fuzz", c.ServiceConfig(false))
		if err != nil {
			t.Fatalf("exported as\n%s\nwhich is refused: %v", c.ServiceConfig(false), err)
		}
		if d := Diff(c, again, nil); d != nil {
			t.Errorf("exporting changes %v", d)
		}
		if _, err := Parse("fuzz", c.ServiceConfig(true)); err != nil {
			t.Errorf("exported vanilla, and refused: %v", err)
		}
		Lint(c, nil)
	})
}
