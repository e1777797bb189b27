package shm

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	segmentName   = "stile-shm"
	segmentSeals  = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_SEAL
	requiredSeals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
)

const overcommitFile = "/proc/sys/vm/overcommit_memory"

// checkOvercommit refuses where the kernel commits memory strictly: it may then refuse
// a page of a segment when that is first written, which ends the process (SIGBUS).
func checkOvercommit(file string) error {
	mode, err := os.ReadFile(file)
	if err == nil && strings.TrimSpace(string(mode)) == "2" {
		return fmt.Errorf("%w: memory is committed strictly here (vm.overcommit_memory=2)", ErrUnavailable)
	}
	return nil // who may not know runs in a sandbox of the usual kind
}

// segment is a mapped segment file. The mapping outlives the file descriptor, and
// goes with the last of those who hold it: the connection, and each slot in use.
type segment struct {
	base    unsafe.Pointer
	total   uintptr
	ring    int
	holders atomic.Int32
}

// hold keeps the memory mapped until a release more. The caller knows that it is
// still mapped.
func (s *segment) hold() { s.holders.Add(1) }

func (s *segment) release() {
	if s.holders.Add(-1) == 0 {
		s.unmap()
	}
}

// createSegmentFile makes a memfd with the layout of two rings of the given
// size, and seals it. No pages but the first are allocated.
func createSegmentFile(ring int) (fd int, err error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err = unix.MemfdCreate(segmentName, flags|unix.MFD_NOEXEC_SEAL)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(segmentName, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("memfd_create: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err = unix.Ftruncate(fd, fileSize(ring)); err != nil {
		return -1, fmt.Errorf("size the segment: %w", err)
	}
	if _, err = unix.Pwrite(fd, encodeLayout(ring), 0); err != nil {
		return -1, fmt.Errorf("write the layout: %w", err)
	}
	if _, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, segmentSeals); err != nil {
		return -1, fmt.Errorf("seal the segment: %w", err)
	}
	return fd, nil
}

// checkSegmentFile looks at a file that the peer offered and returns its ring
// size. After it, no mapped page of the file can go away.
func checkSegmentFile(fd int) (ring int, err error) {
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrSeals, err)
	}
	if seals&requiredSeals != requiredSeals {
		return 0, fmt.Errorf("%w: seals are %#x, need %#x", ErrSeals, seals, requiredSeals)
	}
	if name, err := fdName(fd); err != nil || !strings.HasPrefix(name, "/memfd:") {
		return 0, fmt.Errorf("%w: it is %q (%v)", ErrSeals, name, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	var b [headerLen]byte
	n, err := unix.Pread(fd, b[:], 0)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrLayout, err)
	}
	return parseLayout(b[:n], st.Size)
}

// fdName is what /proc calls the file behind fd.
func fdName(fd int) (string, error) {
	return os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
}

// mapSegment maps the file as layout_linux.go draws it: address space for the
// whole first, then the pieces into it, so that nothing else can come between.
func mapSegment(fd, ring int) (*segment, error) {
	type piece struct {
		file   int64
		length uintptr
	}
	pieces := []piece{
		{0, controlSize},
		{controlSize, uintptr(ring)},
		{controlSize, mirrorSize},
		{controlSize + int64(ring), uintptr(ring)},
		{controlSize + int64(ring), mirrorSize},
		{controlSize + 2*int64(ring), 2 * arenaSize},
	}
	s := &segment{ring: ring}
	s.holders.Store(1)
	for _, p := range pieces {
		s.total += p.length
	}
	var err error
	s.base, err = unix.MmapPtr(-1, 0, nil, s.total, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("reserve %d bytes of addresses: %w", s.total, err)
	}
	at := uintptr(0)
	for _, p := range pieces {
		_, err := unix.MmapPtr(fd, p.file, unsafe.Add(s.base, at), p.length,
			unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_FIXED)
		if err != nil {
			s.unmap()
			return nil, fmt.Errorf("map the segment: %w", err)
		}
		at += p.length
	}
	return s, nil
}

// unmap gives the memory back. Nobody may use the rings any more.
func (s *segment) unmap() {
	_ = unix.MunmapPtr(s.base, s.total)
	s.base = nil
}

func (s *segment) word(off uintptr) word {
	return word{(*uint64)(unsafe.Add(s.base, off))}
}

// data is ring i with its mirror.
func (s *segment) data(i int) []byte {
	off := controlSize + uintptr(i)*(uintptr(s.ring)+mirrorSize)
	return unsafe.Slice((*byte)(unsafe.Add(s.base, off)), s.ring+mirrorSize)
}

// arena is the arena that side i sends through.
func (s *segment) arena(i int) []byte {
	off := controlSize + 2*(uintptr(s.ring)+mirrorSize) + uintptr(i)*arenaSize
	return unsafe.Slice((*byte)(unsafe.Add(s.base, off)), arenaSize)
}

// slotWord is the word of a slot in the arena that a side sends through.
func (s *segment) slotWord(side, slot int) word {
	return s.word(offSlots + uintptr(side)*slotsStride + uintptr(slot)*8)
}

// control is the shared words of one ring.
type control struct{ head, tail, sleeping, wanting word }

func (s *segment) control(i int) control {
	off := offRing + uintptr(i)*ringStride
	return control{
		head:     s.word(off + offHead),
		tail:     s.word(off + offTail),
		sleeping: s.word(off + offSleeping),
		wanting:  s.word(off + offWanting),
	}
}
