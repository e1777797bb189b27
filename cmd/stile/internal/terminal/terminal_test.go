package terminal

import (
	"bytes"
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPlainWhereNobodyLooks(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if Is(file) || Is(null) || Is(&bytes.Buffer{}) {
		t.Errorf("file %v, null %v, buffer %v: none is a terminal", Is(file), Is(null), Is(&bytes.Buffer{}))
	}
	if got := For(file).Bad("no"); got != "no" {
		t.Errorf("%q to a file", got)
	}
}

func TestStyle(t *testing.T) {
	on := Style{on: true}
	for _, got := range []string{on.Good("x"), on.Bad("x"), on.Strong("x"), on.Faint("x")} {
		if len(got) < 6 || got[0] != 0x1b || got[len(got)-4:] != "\x1b[0m" {
			t.Errorf("%q is not styled and ended", got)
		}
	}
	if on.Good("") != "" {
		t.Error("nothing is styled")
	}
}
