package redo

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// ErrDamaged is what Open returns when something that was on disk is not there any more: that is not what a power cut does.
var ErrDamaged = errors.New("redo: the log is damaged")

// recover tells what the segments hold, in order, and returns the last serial and group number.
func (l *Log) recover(tell func(Record) error) (serial, group uint64, err error) {
	used := l.used()
	for i, s := range used {
		if i > 0 && s.serial != used[i-1].serial+1 {
			return 0, 0, fmt.Errorf("%w: there is no segment between %s and %s", ErrDamaged, used[i-1].path, s.path)
		}
		if group, err = s.tell(group, tell); err != nil {
			return 0, 0, err
		}
		serial = s.serial
	}
	return serial, group, nil
}

// used are the segments that hold something, the oldest first.
func (l *Log) used() []*segment {
	var used []*segment
	for _, s := range l.ring {
		if s.serial != 0 {
			used = append(used, s)
		}
	}
	slices.SortFunc(used, func(a, b *segment) int { return cmp.Compare(a.serial, b.serial) })
	return used
}

// tell tells a segment's records, and returns the number of its last group. last is that of the segment before; 0: there is none.
func (s *segment) tell(last uint64, tell func(Record) error) (uint64, error) {
	content := make([]byte, s.size)
	if _, err := s.ReadAt(content, 0); err != nil {
		return 0, fmt.Errorf("redo: %s: %w", s.path, err)
	}
	at := int64(page)
	for at < s.size {
		number, records, ok := s.groupAt(content, at)
		if !ok {
			break
		}
		if last != 0 && number != last+1 {
			return 0, fmt.Errorf("%w: %s has group %d where %d should be", ErrDamaged, s.path, number, last+1)
		}
		last = number
		for d := (decoder{rest: records}); len(d.rest) > 0; {
			r, err := d.next()
			if err == nil {
				err = tell(r)
			}
			if err != nil {
				return 0, err
			}
		}
		at += aligned(groupHead + int64(len(records)))
	}
	for ; at < s.size; at += page {
		if number, _, ok := s.groupAt(content, at); ok {
			return 0, fmt.Errorf("%w: %s is good up to group %d, bad, and good again at group %d", ErrDamaged, s.path, last, number)
		}
	}
	return last, nil
}
