//go:build linux

package shm

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
)

// offer is what a peer may send: by default what Create would.
type offer struct {
	layout     []byte
	size       int64
	seals      int
	flags      int
	file       string // instead of a memfd
	bells      int    // eventfds
	pipeAsBell bool
}

func goodOffer() offer {
	return offer{
		layout: encodeLayout(MinRingSize), size: fileSize(MinRingSize), seals: segmentSeals,
		flags: unix.MFD_ALLOW_SEALING, bells: 2,
	}
}

func (o offer) make(t testing.TB) []int {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var fd int
	var err error
	if o.file != "" {
		fd, err = unix.Open(o.file, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	} else {
		fd, err = unix.MemfdCreate("offer", o.flags|unix.MFD_CLOEXEC)
	}
	check(err)
	check(unix.Ftruncate(fd, o.size))
	_, err = unix.Pwrite(fd, o.layout, 0)
	check(err)
	check(unix.Ftruncate(fd, o.size))
	if o.seals != 0 {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, o.seals)
		check(err)
	}
	fds := []int{fd}
	for range o.bells {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		check(err)
		fds = append(fds, fd)
	}
	if o.pipeAsBell {
		p := make([]int, 2)
		check(unix.Pipe2(p, unix.O_CLOEXEC))
		check(unix.Close(p[0]))
		fds = append(fds, p[1])
	}
	return fds
}

func TestAttachRefuses(t *testing.T) {
	withSize := func(n uint64) []byte {
		b := encodeLayout(MinRingSize)
		binary.LittleEndian.PutUint64(b[offSize:], n)
		return b
	}
	version := encodeLayout(MinRingSize)
	version[offVersion]++
	tests := map[string]struct {
		change func(*offer)
		want   error
	}{
		"unsealed":           {func(o *offer) { o.seals = 0 }, ErrSeals},
		"may shrink":         {func(o *offer) { o.seals = unix.F_SEAL_GROW | unix.F_SEAL_SEAL }, ErrSeals},
		"may grow":           {func(o *offer) { o.seals = unix.F_SEAL_SHRINK }, ErrSeals},
		"without sealing":    {func(o *offer) { o.seals, o.flags = 0, 0 }, ErrSeals},
		"a file":             {func(o *offer) { o.seals, o.file = 0, filepath.Join(t.TempDir(), "f") }, ErrSeals},
		"empty":              {func(o *offer) { o.layout, o.size = nil, 0 }, ErrLayout},
		"only a header":      {func(o *offer) { o.size = headerLen }, ErrLayout},
		"truncated header":   {func(o *offer) { o.size = headerLen - 1; o.layout = o.layout[:headerLen-1] }, ErrLayout},
		"one byte short":     {func(o *offer) { o.size-- }, ErrLayout},
		"one byte long":      {func(o *offer) { o.size++ }, ErrLayout},
		"zeroes":             {func(o *offer) { o.layout = nil }, ErrLayout},
		"another version":    {func(o *offer) { o.layout = version }, ErrLayout},
		"rings too small":    {func(o *offer) { o.layout = withSize(MinRingSize / 2); o.size = fileSize(MinRingSize / 2) }, ErrLayout},
		"rings too large":    {func(o *offer) { o.layout = withSize(2 * MaxRingSize); o.size = fileSize(2 * MaxRingSize) }, ErrLayout},
		"not a power of two": {func(o *offer) { o.layout = withSize(MinRingSize + 4096); o.size = fileSize(MinRingSize + 4096) }, ErrLayout},
		"size that wraps":    {func(o *offer) { o.layout = withSize(1 << 63) }, ErrLayout},
		"one doorbell":       {func(o *offer) { o.bells = 1 }, ErrLayout},
		"three doorbells":    {func(o *offer) { o.bells = 3 }, ErrLayout},
		"pipe for doorbell":  {func(o *offer) { o.bells, o.pipeAsBell = 1, true }, ErrLayout},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o := goodOffer()
			tt.change(&o)
			refused(t, o.make(t), tt.want)
		})
	}
	t.Run("read-only", func(t *testing.T) {
		o := goodOffer()
		o.seals |= unix.F_SEAL_FUTURE_WRITE
		refused(t, o.make(t), nil)
	})
	t.Run("good", func(t *testing.T) {
		a, b := controlPair(t)
		defer b.Close()
		c, err := Attach(a, goodOffer().make(t), transport.Info{}, Config{})
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// refused attaches, expects want or any error, and that every descriptor is
// closed and the control socket is not.
func refused(t *testing.T, fds []int, want error) {
	t.Helper()
	a, b := controlPair(t)
	defer a.Close()
	defer b.Close()
	_, err := Attach(a, fds, transport.Info{}, Config{})
	if err == nil || (want != nil && !errors.Is(err, want)) {
		t.Errorf("got %v, want %v", err, want)
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			t.Errorf("descriptor %d is still open", fd)
		}
	}
	if _, err := a.Write([]byte{1}); err != nil {
		t.Errorf("control socket: %v", err)
	}
}

func TestConfigValidate(t *testing.T) {
	for _, n := range []int{0, MinRingSize, 2 * MinRingSize, MaxRingSize} {
		if err := (Config{RingSize: n}).Validate(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range []int{-1, 1, MinRingSize / 2, MinRingSize + 1, 3 * MinRingSize, 2 * MaxRingSize} {
		if (Config{RingSize: n}).Validate() == nil {
			t.Errorf("%d is accepted", n)
		}
		if _, _, err := Create(nil, transport.Info{}, Config{RingSize: n}); err == nil {
			t.Errorf("%d makes a segment", n)
		}
	}
}

// TestSegmentIsSealed proves that what Create sends cannot be cut off.
func TestSegmentIsSealed(t *testing.T) {
	a, b := controlPair(t)
	defer b.Close()
	c, files, err := Create(a, transport.Info{}, Config{RingSize: 2 * MinRingSize})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer closeFiles(files)
	for _, n := range []int64{0, fileSize(2*MinRingSize) - 1, fileSize(2*MinRingSize) + 1} {
		if err := files[0].Truncate(n); !errors.Is(err, os.ErrPermission) {
			t.Errorf("truncate to %d: %v", n, err)
		}
	}
}

// FuzzAttachLayout offers any header in a file of any size.
func FuzzAttachLayout(f *testing.F) {
	f.Add(encodeLayout(MinRingSize), fileSize(MinRingSize))
	f.Add(encodeLayout(MinRingSize), int64(0))
	f.Add(encodeLayout(3), fileSize(3))
	f.Add([]byte("STILESHM"), int64(8))
	f.Add([]byte{}, int64(1))
	f.Fuzz(func(t *testing.T, layout []byte, size int64) {
		if size < 0 || size > 1<<30 || len(layout) > 4096 {
			return
		}
		o := goodOffer()
		o.layout, o.size = layout, size
		a, b := controlPair(t)
		defer b.Close()
		c, err := Attach(a, o.make(t), transport.Info{}, Config{})
		if err != nil {
			a.Close()
			if !errors.Is(err, ErrLayout) {
				t.Fatal(err)
			}
			return
		}
		if n := int64(c.seg.ring); fileSize(int(n)) != size {
			t.Errorf("rings of %d in a file of %d", n, size)
		}
		c.Close()
	})
}

// Where memory is committed strictly, a page may be refused when it is written.
func TestStrictOvercommit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "overcommit")
	for mode, refused := range map[string]bool{"0\n": false, "1\n": false, "2\n": true} {
		if err := os.WriteFile(file, []byte(mode), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkOvercommit(file); errors.Is(err, ErrUnavailable) != refused {
			t.Errorf("%q: %v", mode, err)
		}
	}
	if err := checkOvercommit(file + ".missing"); err != nil {
		t.Error(err)
	}
}
