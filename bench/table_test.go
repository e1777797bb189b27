package main

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// golden compares got with a file under testdata.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is\n%s", name, got)
	}
}

// around is a stat whose rounds differ by a tenth each way.
func around(v float64) stat { return statOf([]float64{v * 1.1, v, v * 0.9}) }

func fixedRow(peer string, c cell, p50, p99, calls, cpu, switches, allocs, rss float64) row {
	return row{
		Peer: peer, cell: c, P50: around(p50), P99: around(p99), CallsPerS: around(calls), CPU: around(cpu),
		Switches: around(switches), Allocs: around(allocs), ServerAllocs: around(allocs / 2), RSS: around(rss),
		ForeignCores: around(0.02),
	}
}

func fixedReport() report {
	one, many, paced := cell{"unary", 64, 1}, cell{"unary", 64 << 10, 64}, cell{"paced", 64, 1}
	return report{
		Machine: machine{
			CPU: "Example CPU", Cores: 2, Kernel: "6.1.0", Go: "go1.26.8", GRPC: "1.85.0",
			Modules: map[string]string{"storj.io/drpc": "v1.0.0"},
			Load1:   [2]float64{0.1, 1.9}, Foreign: stat{0.02, 0, 0.31},
		},
		Rows: []row{
			fixedRow("grpc-unix", one, 160, 400, 6000, 240, 12, 81, 40e3),
			fixedRow("ttrpc", one, 72, 210, 13500, 102, 8.3, 18, 38e3),
			fixedRow("stile-shm", one, 1.6, 240, 555_000, 4, 0, 6, 45e3),
			fixedRow("stile-unix", one, 74, 200, 13000, 101, 8, 9, 41e3),
			fixedRow("grpc-unix", many, 30000, 120000, 1200, 950, 10, 82, 220e3),
			fixedRow("ttrpc", many, 17000, 39000, 3100, 380, 6, 18, 58e3),
			fixedRow("stile-shm", many, 17000, 36000, 3100, 300, 1, 8, 57e3),
			fixedRow("grpc-unix", paced, 177, 500, 800, 550, 29, 89, 33e3),
			fixedRow("ttrpc", paced, 138, 315, 810, 311, 17, 18, 30e3),
			fixedRow("stile-shm", paced, 60, 320, 790, 150, 8, 6, 33e3),
		},
	}
}

func TestTableGolden(t *testing.T) {
	var b bytes.Buffer
	if err := writeTable(&b, fixedReport()); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.golden", b.Bytes())
}

// TestTableWithoutBase checks that a table without grpc-go has no ratios, and that
// company on the machine is told.
func TestTableWithoutBase(t *testing.T) {
	r := fixedReport()
	r.Rows = r.Rows[1:4]
	r.Machine.Foreign = stat{0.9, 0.5, 1.1}
	var b bytes.Buffer
	if err := writeTable(&b, r); err != nil {
		t.Fatal(err)
	}
	golden(t, "table_without_base.golden", b.Bytes())
}

func TestJSONGolden(t *testing.T) {
	r := fixedReport()
	r.Rows = r.Rows[:2]
	name := filepath.Join(t.TempDir(), "rows.json")
	if err := r.writeFile(name); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "report.golden", text)
}
