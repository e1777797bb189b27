package redo

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"sync"
)

const sector = 512

var errPower = errors.New("the power is off")

// disk is a disk whose power fails. What was written and not synced may be on it afterwards or not, sector by sector.
type disk struct {
	mu    sync.Mutex
	rnd   *rand.Rand
	left  int // writes and syncs until the power fails; negative: never
	off   bool
	files map[string]*diskFile
}

// diskFile is a file of a disk.
type diskFile struct {
	d       *disk
	cache   []byte // what readers see
	durable []byte
	dirty   map[int64][][]byte // what was written to a sector since the last sync
}

func newDisk(rnd *rand.Rand) *disk { return &disk{rnd: rnd, left: -1, files: map[string]*diskFile{}} }

func (d *disk) open(path string, size int64) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[path]
	if f == nil {
		f = &diskFile{d: d, cache: make([]byte, size), durable: make([]byte, size), dirty: map[int64][][]byte{}}
		d.files[path] = f
	}
	return f, nil
}

// stepLocked is a write or sync; it reports whether the power fails during it.
func (d *disk) stepLocked() (fails bool) {
	if d.left > 0 {
		d.left--
	} else if d.left == 0 && !d.off {
		d.off = true
		return true
	}
	return false
}

func (f *diskFile) ReadAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	n := copy(b, f.cache[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *diskFile) WriteAt(b []byte, off int64) (int, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.off {
		return 0, errPower
	}
	if f.d.stepLocked() {
		b = b[:f.d.rnd.IntN(len(b)+1)]
	}
	copy(f.cache[off:], b)
	for at := off / sector * sector; at < off+int64(len(b)); at += sector {
		f.dirty[at] = append(f.dirty[at], append([]byte(nil), f.cache[at:at+sector]...))
	}
	if f.d.off {
		return len(b), errPower
	}
	return len(b), nil
}

func (f *diskFile) Sync() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.off {
		return errPower
	}
	if f.d.stepLocked() {
		return errPower
	}
	copy(f.durable, f.cache)
	clear(f.dirty)
	return nil
}

func (f *diskFile) Close() error { return nil }

// restart is the disk after a power cut.
func (d *disk) restart() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.off, d.left = false, -1
	for f := range maps.Values(d.files) {
		for at, versions := range f.dirty {
			if i := d.rnd.IntN(len(versions) + 1); i < len(versions) {
				copy(f.durable[at:], versions[i])
			}
		}
		clear(f.dirty)
		copy(f.cache, f.durable)
	}
}
