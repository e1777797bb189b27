package redo

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

const (
	page       = 4096 // what no write shares with anything that is on disk already
	groupHead  = 16   // bytes before the records of a group
	headerSize = 36   // bytes used of a segment's first page
	magic      = "stileq01"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// file is a segment's. Sync returns when all that was written is on disk.
type file interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
	Close() error
}

// segment is one file of the ring.
type segment struct {
	file
	path   string
	size   int64
	serial uint64 // 0: it was never used
	salt   uint64
}

// openSegment opens the file, or makes it full of zeros: a sync of what is written over them has no metadata to write.
func openSegment(path string, size int64) (file, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() != size {
		if info.Size() > size {
			err = fmt.Errorf("%s has %d bytes, more than the %d of a segment", path, info.Size(), size)
		} else {
			err = fill(f, info.Size(), size)
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return dataFile{f}, nil
}

func fill(f *os.File, from, to int64) error {
	zeros := make([]byte, min(to-from, 1<<20))
	for from < to {
		n, err := f.WriteAt(zeros[:min(int64(len(zeros)), to-from)], from)
		if err != nil {
			return err
		}
		from += int64(n)
	}
	return f.Sync()
}

// syncDir puts the names in a folder on disk, where that can be asked for.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func segmentPath(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("%d.log", i)) }

// header is the first page of a segment that begins.
func (s *segment) header() []byte {
	b := make([]byte, page)
	copy(b, magic)
	binary.LittleEndian.PutUint64(b[8:], s.serial)
	binary.LittleEndian.PutUint64(b[16:], s.salt)
	binary.LittleEndian.PutUint64(b[24:], uint64(s.size))
	binary.LittleEndian.PutUint32(b[32:], headerSum(b))
	return b
}

func headerSum(b []byte) uint32 { return crc32.Checksum(b[:headerSize-4], castagnoli) }

// readHeader learns which segment the file has. One whose header is not right has none.
func (s *segment) readHeader() error {
	b := make([]byte, headerSize)
	if _, err := s.ReadAt(b, 0); err != nil {
		return fmt.Errorf("redo: %s: %w", s.path, err)
	}
	if string(b[:8]) != magic || binary.LittleEndian.Uint32(b[32:]) != headerSum(b) {
		return nil
	}
	s.serial, s.salt = binary.LittleEndian.Uint64(b[8:]), binary.LittleEndian.Uint64(b[16:])
	if size := binary.LittleEndian.Uint64(b[24:]); size != uint64(s.size) {
		return fmt.Errorf("redo: %s was made with %d bytes, not %d", s.path, size, s.size)
	}
	return nil
}

// groupSum is the checksum of a group, from its length on.
func (s *segment) groupSum(b []byte) uint32 {
	var salt [8]byte
	binary.LittleEndian.PutUint64(salt[:], s.salt)
	return crc32.Update(crc32.Checksum(salt[:], castagnoli), castagnoli, b[4:])
}

// seal completes a group of which b has room for the head, and then the records.
func (s *segment) seal(b []byte, number uint64) {
	binary.LittleEndian.PutUint32(b[4:], uint32(len(b)-groupHead))
	binary.LittleEndian.PutUint64(b[8:], number)
	binary.LittleEndian.PutUint32(b, s.groupSum(b))
}

// groupAt returns the number and the records of the group at a place in the segment's content, if there is one.
func (s *segment) groupAt(content []byte, at int64) (number uint64, records []byte, ok bool) {
	b := content[at:]
	if len(b) < groupHead {
		return 0, nil, false
	}
	length := int64(binary.LittleEndian.Uint32(b[4:]))
	if length == 0 || length > int64(len(b)-groupHead) {
		return 0, nil, false
	}
	b = b[:groupHead+length]
	if binary.LittleEndian.Uint32(b) != s.groupSum(b) {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(b[8:]), b[groupHead:], true
}

// aligned is n, up to the end of its page.
func aligned(n int64) int64 { return (n + page - 1) &^ (page - 1) }
