package packed

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

// TestReader: values come back in their order, and nothing of what is cut or too large.
func TestReader(t *testing.T) {
	b := binary.AppendUvarint(nil, math.MaxUint64)
	b = binary.AppendVarint(b, math.MinInt64)
	b = AppendFloat(AppendString(b, "a text"), -0.5)
	sealed := Seal(b)
	opened, err := Open(sealed)
	if err != nil || string(opened) != string(b) {
		t.Errorf("%x, %v", opened, err)
	}
	read := func(b []byte) (uint64, int64, string, float64, error) {
		r := NewReader(b)
		return r.Uint(), r.Int(), r.String(), r.Float(), r.End()
	}
	if u, i, s, f, err := read(b); u != math.MaxUint64 || i != math.MinInt64 || s != "a text" || f != -0.5 || err != nil {
		t.Errorf("%d %d %q %g, %v", u, i, s, f, err)
	}
	for n := range b {
		if _, _, _, _, err := read(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("of %d bytes: %v", n, err)
		}
	}
	if _, _, _, _, err := read(append(b, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("of one more: %v", err)
	}
	for i := range sealed {
		sealed[i] ^= 1
		if _, err := Open(sealed); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d was changed: %v", i, err)
		}
		sealed[i] ^= 1
	}
	for _, id := range []string{"", "00ff", "00FF", "0ff", "catalog 7", "4bf92f3577b34da6a3ce929d0e0e4736"} {
		r := NewReader(AppendID(nil, id))
		if back := r.ID(); back != id || r.End() != nil {
			t.Errorf("%q came back as %q, %v", id, back, r.End())
		}
	}
	for _, bad := range [][]byte{{5, 1, 2}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, nil} {
		r := NewReader(bad)
		if n := r.Count(1); n != 0 || r.Err() == nil {
			t.Errorf("%x: %d", bad, n)
		}
		r = NewReader(bad)
		if n := r.Below(5); n != 0 || r.Err() == nil {
			t.Errorf("%x: %d is below 5", bad, n)
		}
	}
}
