package local

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"unicode/utf8"
)

// FuzzHello reads a stream as each kind of handshake message: what is accepted
// must survive being said again, and everything else must end as ErrHandshake.
func FuzzHello(f *testing.F) {
	f.Add(hello{min: 1, max: 2, flags: flagSHM, pid: 7, key: "tcp-192.0.2.1:7"}.encode())
	f.Add(answer{status: statusOK, version: 1, flags: flagSHM, min: 1, max: 1, reason: "r", settings: []byte("s")}.encode())
	f.Add(ack{status: ackSocket, reason: "no memory"}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		check := func(err error) {
			if err != nil && !errors.Is(err, ErrHandshake) && !errors.Is(err, io.EOF) {
				t.Fatalf("unnamed error: %v", err)
			}
		}
		for _, kind := range []struct {
			magic string
			limit uint32
			again func(body []byte) ([]byte, error)
		}{
			{magicHello, maxHelloBody, func(body []byte) ([]byte, error) {
				h, err := decodeHello(body)
				return h.encode(), err
			}},
			{magicAnswer, maxAnswerBody, func(body []byte) ([]byte, error) {
				a, err := decodeAnswer(body)
				if !utf8.ValidString(a.reason) {
					t.Fatalf("reason %q", a.reason)
				}
				return a.encode(), err
			}},
			{magicAck, maxAckBody, func(body []byte) ([]byte, error) {
				k, err := decodeAck(body)
				return k.encode(), err
			}},
		} {
			r := bytes.NewReader(b)
			body, err := readMessage(r, kind.magic, kind.limit)
			check(err)
			if err != nil {
				continue
			}
			if read := len(b) - r.Len(); read != headSize+len(body) {
				t.Fatalf("read %d bytes for a body of %d", read, len(body))
			}
			once, err := kind.again(body)
			check(err)
			if err != nil {
				continue
			}
			twice, err := kind.again(once[headSize:])
			if err != nil || !bytes.Equal(once, twice) {
				t.Fatalf("said again: %v\n%q\n%q", err, once, twice)
			}
		}
	})
}
