package transporttest

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// lenders makes a started connection of which both ends lend memory, if they do.
func (s suite) lenders(t *testing.T, in *sink) (client transport.Lender, server transport.Conn, ok bool) {
	t.Helper()
	c, d := s.pair(t)
	c.Start(newSink(t))
	d.Start(in)
	client, ok = c.(transport.Lender)
	return client, d, ok
}

// testLoans sends lent payloads of all sizes between ordinary frames, from several
// goroutines, and gives them back in another order than they came.
func (s suite) testLoans(t *testing.T) {
	const writers, frames = 4, 300
	in, done := newSink(t), make(chan struct{})
	var mu sync.Mutex
	var held []received
	rnd := rand.New(rand.NewPCG(1, 2))
	got := 0
	in.onFrame = func(h wire.Header, b *wire.Buf) {
		mu.Lock()
		defer mu.Unlock()
		held = append(held, received{h, b})
		for len(held) > 10 || (got+len(held) == writers*frames && len(held) > 0) {
			i := rnd.IntN(len(held))
			r := held[i]
			held[i] = held[len(held)-1]
			held = held[:len(held)-1]
			checkSeeded(t, r)
			r.release()
			got++
		}
		if got == writers*frames {
			close(done)
		}
	}
	client, _, ok := s.lenders(t, in)
	if !ok {
		return // lending is optional
	}
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 3))
			for i := range uint64(frames) {
				seed := w<<32 | i
				body := make([]byte, 1+rnd.IntN(200<<10))
				seeded(seed, body)
				if err := sendLent(client, seed, rnd.IntN(40), body); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	receive(t, done, "last frame")
}

// sendLent sends body, its first bytes by copy, the rest lent if memory is to be had.
func sendLent(c transport.Lender, id uint64, own int, body []byte) error {
	own = min(own, len(body)-1)
	loan, ok := c.Lend(len(body) - own)
	if !ok {
		if len(body) > wire.MaxPayload {
			body = body[:wire.MaxPayload]
		}
		return c.Write(nil, streamHeader(id), nil, body)
	}
	if id%7 == 0 { // taken and not used
		c.Return(loan)
		if loan, ok = c.Lend(len(body) - own); !ok {
			return c.Write(nil, streamHeader(id), nil, body[:min(len(body), wire.MaxPayload)])
		}
	}
	copy(loan.B, body[own:])
	return c.WriteLoan(nil, streamHeader(id), body[:own], loan)
}

func seeded(seed uint64, b []byte) { fill(rand.New(rand.NewPCG(seed, 9)), b) }

// checkSeeded checks a payload that seeded filled.
func checkSeeded(t *testing.T, r received) {
	t.Helper()
	all := bytes.Clone(r.b.B)
	if r.b.Tail != nil {
		all = append(all, r.b.Tail.B...)
	}
	if len(all) != int(r.h.Len) {
		t.Errorf("header says %d payload bytes, there are %d", r.h.Len, len(all))
	}
	// A payload that was cut begins as the whole one does.
	want := make([]byte, (len(all)+7)&^7+8)
	seeded(r.h.Stream, want)
	if n := len(all) &^ 7; !bytes.Equal(all[:n], want[:n]) {
		t.Errorf("frame %d of %d bytes is damaged", r.h.Stream, len(all))
	}
}

// testLoansEnd has payloads in use on both sides when the connection ends: they stay
// readable and writable, and nothing more is lent.
func (s suite) testLoansEnd(t *testing.T) {
	in := newSink(t)
	client, server, ok := s.lenders(t, in)
	if !ok {
		return
	}
	const size = 100_000
	sent, ok := client.Lend(size)
	if !ok {
		t.Fatal("nothing is lent")
	}
	seeded(1, sent.B)
	if err := client.WriteLoan(nil, streamHeader(1), nil, sent); err != nil {
		t.Fatal(err)
	}
	r := in.next(t)
	writing, ok := client.Lend(size)
	if !ok {
		t.Fatal("no second loan")
	}
	closeConn(t, client)
	closeConn(t, server)
	seeded(2, writing.B)
	checkSeeded(t, r)
	if _, ok := client.Lend(size); ok {
		t.Error("memory is lent after the end")
	}
	if err := client.WriteLoan(nil, streamHeader(2), nil, writing); err == nil {
		t.Error("a loan was sent after the end")
	}
	client.Return(writing)
	checkSeeded(t, r)
	r.release()
}

// testLoansExhausted borrows until there is nothing left, and again when the peer has
// given all back.
func (s suite) testLoansExhausted(t *testing.T) {
	const size = 1 << 20
	in := newSink(t)
	client, _, ok := s.lenders(t, in)
	if !ok {
		return
	}
	first := 0
	for round := range 2 {
		n := 0
		for {
			loan, ok := client.Lend(size)
			if !ok {
				break
			}
			if n++; n > 10_000 {
				t.Fatal("there is no end of memory")
			}
			loan.B[0], loan.B[size-1] = 1, 2
			if err := client.WriteLoan(nil, streamHeader(uint64(n)), nil, loan); err != nil {
				t.Fatal(err)
			}
		}
		for range n {
			in.next(t).release()
		}
		if round == 0 {
			first = n
		} else if n != first || n == 0 {
			t.Errorf("%d loans, then %d", first, n)
		}
	}
}
