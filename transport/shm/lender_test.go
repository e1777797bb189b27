//go:build linux

package shm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// newTestSegment maps a segment twice, as two processes do.
func newTestSegment(t testing.TB) (a, b *segment) {
	t.Helper()
	fd, err := createSegmentFile(MinRingSize)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for _, s := range []**segment{&a, &b} {
		if *s, err = mapSegment(fd, MinRingSize); err != nil {
			t.Fatal(err)
		}
		t.Cleanup((*s).release)
	}
	return a, b
}

func TestSlotsCover(t *testing.T) {
	at := 0
	for i, s := range slots {
		if s.at != at || s.size%(16<<10) != 0 {
			t.Errorf("slot %d: %+v, the one before ends at %d", i, s, at)
		}
		at += s.size
		if f := firstSlot(s.size); slots[f].size != s.size {
			t.Errorf("%d bytes begin at slot %d of %d bytes", s.size, f, slots[f].size)
		}
		if f := firstSlot(s.size + 1); s.size < maxLoan && slots[f].size <= s.size {
			t.Errorf("%d bytes begin at slot %d of %d bytes", s.size+1, f, slots[f].size)
		}
	}
	if at != arenaSize || slotsStride < numSlots*8 {
		t.Errorf("slots end at %d of %d", at, arenaSize)
	}
}

// TestReferencesThatLie gives the receiver every kind of reference that names
// nothing, or too much.
func TestReferencesThatLie(t *testing.T) {
	ref := func(slot, n uint32) []byte {
		return binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, slot), n)
	}
	for name, payload := range map[string][]byte{
		"no such slot":      ref(numSlots, 1),
		"slot far away":     ref(1<<32-1, 1),
		"nothing of a slot": ref(0, 0),
		"longer than slot":  ref(0, 16<<10+1),
		"longer than arena": ref(numSlots-1, 1<<32-1),
		"cut short":         ref(0, 1)[:7],
		"empty":             nil,
	} {
		t.Run(name, func(t *testing.T) {
			p, k := newTestRing(t, 0)
			p.put(wire.Header{Type: wire.TypePart, Len: uint32(len(payload))}, markRef, nil, payload)
			if _, b, err := k.next(); !errors.Is(err, ErrCorrupt) || !errors.Is(err, transport.ErrProtocol) {
				t.Errorf("%v, %v: want ErrCorrupt", b, err)
			}
		})
	}
	t.Run("twice", func(t *testing.T) {
		p, k := newTestRing(t, 0)
		send := func() { p.put(wire.Header{Type: wire.TypePart, Len: refSize}, markRef, nil, ref(3, 100)) }
		send()
		h, b, err := k.next()
		if err != nil || h.Len != 100 || len(b.Tail.B) != 100 || !b.Tail.Borrowed() {
			t.Fatalf("%+v, %v", h, err)
		}
		send()
		if _, _, err := k.next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("a slot in use: %v", err)
		}
		b.Release()
		send()
		if _, b, err = k.next(); err != nil {
			t.Fatalf("a slot that is free again: %v", err)
		}
		b.Release()
	})
	t.Run("unknown mark", func(t *testing.T) {
		p, k := newTestRing(t, 0)
		p.put(wire.Header{Type: wire.TypePart, Len: refSize}, 2, nil, ref(0, 1))
		if _, _, err := k.next(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%v, want ErrCorrupt", err)
		}
	})
}

// pagesOf counts the pages of a segment that exist.
func pagesOf(t *testing.T, s *segment) int {
	t.Helper()
	size := int(s.total)
	vec := make([]byte, size/unix.Getpagesize())
	if err := mincore(s, vec); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// TestTrim: what a burst has filled goes back to the kernel a while after, but for
// what the peer still reads; the last page stops the timer.
func TestTrim(t *testing.T) {
	sender, peer := newTestSegment(t)
	synctest.Test(t, func(t *testing.T) {
		sender.slotWord(0, 0).store(0) // the page of the slots' words stays
		before, used := pagesOf(t, sender), Used()
		l, b := newLender(sender, 0), newBorrower(peer, 0)
		ref := [refSize]byte{}
		var bufs []*wire.Buf
		for range 8 {
			loan, ok := l.lend(100 << 10)
			if !ok {
				t.Fatal("no loan")
			}
			clear(loan.B)
			l.sending(loan.Slot)
			l.done(loan.Slot, true)
			putRef(&ref, loan.Slot, len(loan.B))
			buf, err := b.borrow(ref[:])
			if err != nil {
				t.Fatal(err)
			}
			bufs = append(bufs, buf)
		}
		full := pagesOf(t, sender) - before
		if want := 8 * (100 << 10) / unix.Getpagesize(); full < want || Used()-used < 8*100<<10 {
			t.Errorf("%d pages and %d bytes in use, want %d pages", full, Used()-used, want)
		}
		for _, buf := range bufs[1:] {
			buf.Release()
		}
		time.Sleep(5 * trimAfter)
		if n := pagesOf(t, sender) - before; n == 0 || n > full/8+1 {
			t.Errorf("%d pages while one payload of %d is in use", n, 8)
		}
		bufs[0].Release()
		time.Sleep(2 * trimAfter)
		if n := pagesOf(t, sender) - before; n != 0 || Used() != used {
			t.Errorf("%d pages and %d bytes after all is done", n, Used()-used)
		}
		l.mu.Lock()
		if l.timer != nil {
			t.Error("the timer goes on")
		}
		l.mu.Unlock()
		loan, ok := l.lend(1)
		if !ok || loan.B[0] != 0 {
			t.Error("no loan after a trim")
		}
		l.done(loan.Slot, false)
		l.close()
		if Used() != used {
			t.Errorf("%d bytes are left after close", Used()-used)
		}
	})
}

// TestLimit: a connection over the limit is refused in a way that the handshake turns
// into a socket, and a large payload is not lent.
func TestLimit(t *testing.T) {
	client, server := newPair(t, Config{}, Config{})
	defer server.Close()
	defer client.Close()
	SetLimit(Used() + 64<<10)
	defer SetLimit(DefaultLimit)
	loan, ok := client.Lend(60 << 10)
	if !ok {
		t.Error("nothing is lent below the limit")
	}
	if _, ok := client.Lend(60 << 10); ok {
		t.Error("lent over the limit")
	}
	client.Return(loan)
	a, b := controlPair(t)
	defer b.Close()
	defer a.Close()
	if _, _, err := Create(a, transport.Info{}, Config{}); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), "limit") {
		t.Errorf("Create over the limit: %v", err)
	}
}

// TestRingTrim: a ring that was full of frames takes no memory a while after the last
// one, and carries frames again. A peer that has not read keeps its pages.
func TestRingTrim(t *testing.T) {
	client, server := newPair(t, Config{}, Config{})
	defer server.Close()
	defer client.Close()
	got := make(chan int, 1024)
	client.Start(count(got))
	body := bytes.Repeat([]byte{1}, 60_000)
	send := func(n int) {
		for range n {
			if err := client.Write(nil, wire.Header{Type: wire.TypePart}, nil, body); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(3)
	if client.trimRing() {
		t.Error("trimmed a ring that the peer has not read")
	}
	server.Start(count(got))
	send(40)
	for range 43 {
		if n := <-got; n != len(body) {
			t.Fatalf("a frame of %d bytes", n)
		}
	}
	full, used := pagesOf(t, client.seg), Used()
	for end := time.Now().Add(20 * time.Second); pagesOf(t, client.seg) > 8 || Used() >= used; time.Sleep(10 * time.Millisecond) { // the pages go first, and are counted then
		if time.Now().After(end) {
			t.Fatalf("%d pages, %d before the quiet time; %d bytes count as filled, %d before", pagesOf(t, client.seg), full, Used(), used)
		}
		client.trimmer.quiet() // as its goroutine would: nothing comes for it here
	}
	send(2)
	for range 2 {
		if n := <-got; n != len(body) {
			t.Fatalf("a frame of %d bytes after the trim", n)
		}
	}
}

// count reports the length of each frame that arrives.
type count chan<- int

func (c count) HandleFrame(_ wire.Header, b *wire.Buf) {
	for _, v := range b.B {
		if v != 1 {
			c <- -1
		}
	}
	c <- len(b.B)
	b.Release()
}

func (count) HandleClose(error) {}

// A free slot's pages are given back only if they are no other slot's too: with pages
// of 64 KiB the kernel would take those of the next ones along.
func TestOwnPages(t *testing.T) {
	for _, page := range []int{4 << 10, 16 << 10, 64 << 10} {
		shared := 0
		for _, s := range slots {
			if !ownPages(s, page) {
				shared++
				continue
			}
			for _, other := range slots {
				if other != s && other.at/page <= (s.at+s.size-1)/page && s.at/page <= (other.at+other.size-1)/page {
					t.Fatalf("pages of %d bytes: slot at %d shares one with the slot at %d", page, s.at, other.at)
				}
			}
		}
		if (page < 64<<10) != (shared == 0) {
			t.Errorf("pages of %d bytes: %d slots share pages", page, shared)
		}
	}
}
