//go:build unix && !aix && !solaris

package local

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/transport"
)

// hang is a handshake timeout that a test outwaits.
const hang = 50 * time.Millisecond

func TestInfo(t *testing.T) {
	noFDsLeft(t)
	for _, noSHM := range []bool{false, true} {
		l := listen(t, ListenConfig{Dir: testDir(t)})
		want := infoSHM
		if noSHM || (kernelMemory{}).available() != nil {
			want = infoSocket
		}
		self := transport.ClientInfo{Process: [16]byte{1, 2, 15: 3}, ReadsTimes: noSHM, Traces: !noSHM}
		client, server := pair(t, l, testKey, DialConfig{NoSHM: noSHM, Self: self})
		exchange(t, client, server)
		ci, si := client.Info(), server.Info()
		if ci.Transport != want || si.Transport != want {
			t.Errorf("transports %q, %q, want %q", ci.Transport, si.Transport, want)
		}
		if got := si.RemoteAddr; got.String() != "@" || got.Network() != "unix" {
			t.Errorf("server's remote address %v %v", got.Network(), got)
		}
		if ci.RemoteAddr.String() != l.Addr().String() || si.LocalAddr.String() != l.Addr().String() {
			t.Errorf("addresses %v, %v, want %v", ci.RemoteAddr, si.LocalAddr, l.Addr())
		}
		if si.Client != self || ci.Client != (transport.ClientInfo{}) {
			t.Errorf("the server knows %+v of its client", si.Client)
		}
		for _, p := range []transport.Cred{ci.Peer, si.Peer} {
			if p.Known && (p.UID != os.Geteuid() || p.PID != os.Getpid()) {
				t.Errorf("peer %+v", p)
			}
		}
		if s := l.Stats(); s.Accepted != 1 || (s.SHM == 1) != (want == infoSHM) || s.Fallbacks != 0 {
			t.Errorf("stats %+v", s)
		}
	}
}

func TestSettings(t *testing.T) {
	for _, want := range []string{"", "x", strings.Repeat("s", MaxSettings)} {
		l := listen(t, ListenConfig{Dir: testDir(t), Settings: []byte(want)})
		acceptAll(t, l)
		c, got, err := dialOnce(t, l.folder.path, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		if string(got) != want {
			t.Errorf("got %d bytes, want %d", len(got), len(want))
		}
	}
}

func TestVersions(t *testing.T) {
	noFDsLeft(t)
	for _, tt := range []struct {
		name                       string
		cMin, cMax, sMin, sMax, is uint16
	}{
		{"newer server knows the client's", 1, 1, 1, 3, 1},
		{"newer client knows the server's", 1, 3, 1, 2, 2},
		{"client too old", 1, 1, 2, 3, 0},
		{"client too new", 4, 5, 1, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := listen(t, ListenConfig{Dir: testDir(t), env: env{min: tt.sMin, max: tt.sMax}})
			acceptAll(t, l)
			cfg := DialConfig{Dir: l.folder.path, Logger: quiet, env: env{min: tt.cMin, max: tt.cMax}}
			r, err := Probe(context.Background(), testKey, cfg)
			if tt.is == 0 {
				if !errors.Is(err, ErrVersion) || r.Refusal == "" {
					t.Errorf("got %v, %+v", err, r)
				}
				eventually(t, "refusal counted", func() bool { return l.Stats().RefusedVersion == 1 })
				return
			}
			if err != nil || r.Version != tt.is {
				t.Errorf("version %d, %v, want %d", r.Version, err, tt.is)
			}
		})
	}
	if v, ok := common(1, 1, 2, 2); ok {
		t.Errorf("common version %d", v)
	}
}

// Peers of a later version may say more than we know.
func TestLongerMessagesOfLaterVersions(t *testing.T) {
	noFDsLeft(t)
	more := func(b []byte) []byte {
		b = append(bytes.Clone(b), "and more"...)
		return seal(b)
	}
	t.Run("client", func(t *testing.T) {
		l := listen(t, ListenConfig{Dir: testDir(t)})
		acceptAll(t, l)
		uc := rawDial(t, l.folder.path)
		_, _ = uc.Write(more(hello{min: 1, max: 9, flags: 0xf0, key: testKey}.encode()))
		a, err := decodeAnswer(must(readMessage(uc, magicAnswer, maxAnswerBody)))
		if err != nil || a.status != statusOK || a.version != 1 {
			t.Fatalf("answer %+v, %v", a, err)
		}
		_, _ = uc.Write(more(ack{status: ackSocket}.encode()))
		eventually(t, "accepted", func() bool { return l.Stats().Accepted == 1 })
	})
	t.Run("server", func(t *testing.T) {
		dir := testDir(t)
		fakeServer(t, dir, func(uc *net.UnixConn) {
			_, _ = readMessage(uc, magicHello, maxHelloBody)
			_, _ = uc.Write(more(answer{status: statusOK, version: 1, flags: 0xf0, settings: []byte("hi")}.encode()))
			_, _ = readMessage(uc, magicAck, maxAckBody)
		})
		c, settings, err := dialOnce(t, dir, DialConfig{})
		if err != nil || string(settings) != "hi" {
			t.Fatalf("got %q, %v", settings, err)
		}
		_ = c.Close()
	})
}

func TestShut(t *testing.T) {
	noFDsLeft(t)
	var log logLines
	l := listen(t, ListenConfig{Dir: testDir(t), Shut: "transport credentials authenticate callers", Logger: log.logger()})
	for range 3 {
		_, _, err := dialOnce(t, l.folder.path, DialConfig{})
		var refused *RefusedError
		if !errors.Is(err, ErrRefused) || !errors.As(err, &refused) || refused.Reason != l.cfg.Shut {
			t.Fatalf("got %v", err)
		}
	}
	r, err := Probe(context.Background(), testKey, DialConfig{Dir: l.folder.path, Logger: quiet})
	if !errors.Is(err, ErrRefused) || r.Refusal != l.cfg.Shut {
		t.Errorf("probe: %+v, %v", r, err)
	}
	eventually(t, "refusals counted", func() bool { return l.Stats().RefusedShut == 4 })
	_ = l.Close()
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("logged %d lines:\n%s", n, log.String())
	}
}

func TestWrongKey(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t)})
	other := l.folder.shown(entryName("tcp-192.0.2.1:8"))
	if err := os.Link(l.Addr().String(), other); err != nil {
		t.Fatal(err)
	}
	_, _, err := Dial(context.Background(), "tcp-192.0.2.1:8", DialConfig{Dir: l.folder.path, Logger: quiet})
	if !errors.Is(err, ErrWrongKey) {
		t.Errorf("got %v", err)
	}
	eventually(t, "refusal counted", func() bool { return l.Stats().RefusedKey == 1 })
}

func TestProbe(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t), NoSHM: true})
	// No Accept: a probe must not need, nor feed, one.
	for range 2 {
		r, err := Probe(context.Background(), testKey, DialConfig{Dir: l.folder.path, Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		if r.Transport != infoSocket || r.NoSHM == "" || r.Version == 0 || r.Path != l.Addr().String() || r.Key != testKey {
			t.Errorf("report %+v", r)
		}
		var names []string
		for _, s := range r.Steps {
			names = append(names, s.Name)
			if !s.OK || s.Detail == "" {
				t.Errorf("step %+v", s)
			}
		}
		if got := strings.Join(names, " "); got != "folder entry connect peer handshake transport" {
			t.Errorf("steps: %s", got)
		}
	}
	eventually(t, "probes counted", func() bool { return l.Stats() == Stats{Probes: 2} })
}

// badBytes are handshakes that are none; each ends with the sender hanging up.
func badBytes(good []byte) map[string][]byte {
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint32(long[4:], 1<<31)
	short := bytes.Clone(good)
	binary.LittleEndian.PutUint32(short[4:], 3)
	bad := map[string][]byte{
		"http2":         []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
		"zeros":         make([]byte, 4096),
		"ones":          bytes.Repeat([]byte{0xff}, 4096),
		"length lies":   long,
		"body too tiny": short,
		"magic only":    good[:4],
	}
	for i := 5; i < len(good); i += 7 {
		bad["cut at "+string(rune('a'+i%26))] = good[:i]
	}
	return bad
}

func TestGarbageFromClient(t *testing.T) {
	noFDsLeft(t)
	var log logLines
	l := listen(t, ListenConfig{Dir: testDir(t), Logger: log.logger()})
	acceptAll(t, l)
	good := hello{min: 1, max: 1, key: testKey}.encode()
	want := uint64(0)
	lie := bytes.Clone(good)
	binary.LittleEndian.PutUint16(lie[headSize+12:], 0xffff)
	backwards := hello{min: 2, max: 1, key: testKey}.encode()
	bad := badBytes(good)
	bad["key length lies"], bad["versions backwards"] = lie, backwards
	for name, b := range bad {
		uc := rawDial(t, l.folder.path)
		_, _ = uc.Write(b)
		_ = uc.CloseWrite()
		reply, err := io.ReadAll(uc)
		if err != nil && len(reply) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if len(reply) < headSize || reply[headSize] != statusMalformed {
			t.Errorf("%s: reply %q", name, reply)
		}
		want++
	}
	// Bad acks.
	for _, b := range [][]byte{nil, []byte("garbage"), ack{status: 9}.encode(), ack{status: ackSHM}.encode()} {
		uc := rawDial(t, l.folder.path)
		_, _ = uc.Write(good)
		if _, err := readMessage(uc, magicAnswer, maxAnswerBody); err != nil {
			t.Error(err)
		}
		_, _ = uc.Write(b)
		_ = uc.CloseWrite()
		_, _ = io.Copy(io.Discard, uc)
		want++
	}
	// Came and went.
	_ = rawDial(t, l.folder.path).Close()
	c, _, err := dialOnce(t, l.folder.path, DialConfig{})
	if err != nil {
		t.Fatalf("a good client after the bad: %v", err)
	}
	_ = c.Close()
	eventually(t, "all counted", func() bool { return l.Stats().Failed == want })
	_ = l.Close()
	if n := strings.Count(log.String(), "refused"); n != 1 {
		t.Errorf("logged %d times:\n%s", n, log.String())
	}
}

func TestGarbageFromServer(t *testing.T) {
	noFDsLeft(t)
	bad := badBytes(answer{status: statusOK, version: 1, min: 1, max: 1, settings: []byte("some settings")}.encode())
	lie := answer{status: statusOK, version: 1}.encode()
	binary.LittleEndian.PutUint16(lie[headSize+14:], MaxSettings)
	bad["settings length lies"] = lie
	bad["memory nobody wants"] = answer{status: statusOK, version: 1, flags: flagSHM}.encode()
	bad["nothing"] = nil
	for name, b := range bad {
		t.Run(name, func(t *testing.T) {
			dir := testDir(t)
			fakeServer(t, dir, func(uc *net.UnixConn) {
				_, _ = readMessage(uc, magicHello, maxHelloBody)
				_, _ = uc.Write(b)
			})
			c, _, err := dialOnce(t, dir, DialConfig{NoSHM: true})
			if c != nil || !errors.Is(err, ErrHandshake) {
				t.Errorf("got %v, %v", c, err)
			}
		})
	}
	for _, tt := range []struct {
		a    answer
		want error
	}{
		{answer{status: statusOK, version: 99}, ErrVersion},
		{answer{status: statusUID, reason: "who\x1b[2Jare you"}, ErrUID},
		{answer{status: statusMalformed}, ErrHandshake},
		{answer{status: 200, reason: "of the future"}, ErrRefused},
	} {
		dir := testDir(t)
		fakeServer(t, dir, func(uc *net.UnixConn) { _, _ = uc.Write(tt.a.encode()) }) // hangs up with the hello unread
		c, _, err := dialOnce(t, dir, DialConfig{})
		if c != nil || !errors.Is(err, tt.want) {
			t.Errorf("%+v: got %v, %v", tt.a, c, err)
		} else if strings.Contains(err.Error(), "\x1b") {
			t.Errorf("unprintable bytes of the peer in %q", err)
		}
	}
}

// Clients that say nothing use up their places for a while, then others go on.
func TestStallingClients(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t), env: env{timeout: hang, underWay: 2}})
	acceptAll(t, l)
	const n = 5
	for i := range n {
		uc := rawDial(t, l.folder.path)
		_, _ = uc.Write(hello{min: 1, max: 1, key: testKey}.encode()[:i*5])
	}
	c, _, err := dialOnce(t, l.folder.path, DialConfig{})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	eventually(t, "given up", func() bool { return l.Stats().Failed == n })
	if s := l.Stats(); s.Accepted != 1 {
		t.Errorf("stats %+v", s)
	}
}

// One that stalls takes nothing from others that are there at the same time.
func TestStallBlocksNobody(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t)})
	acceptAll(t, l)
	for range maxUnderWay - 1 {
		rawDial(t, l.folder.path)
	}
	for range 10 {
		c, _, err := dialOnce(t, l.folder.path, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	}
	_ = l.Close() // ends the silent ones too
}

func TestStallingServer(t *testing.T) {
	noFDsLeft(t)
	dir := testDir(t)
	rawListen(t, dir) // the kernel connects, nobody answers
	_, _, err := dialOnce(t, dir, DialConfig{env: env{timeout: hang}})
	if !errors.Is(err, ErrHandshake) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(hang, cancel)
	if _, _, err := Dial(ctx, testKey, DialConfig{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Dial(ctx, testKey, DialConfig{Dir: dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: got %v", err)
	}
}

// Clients that shook hands wait for Accept; Close ends them.
func TestCloseWithClientsWaiting(t *testing.T) {
	noFDsLeft(t)
	l := listen(t, ListenConfig{Dir: testDir(t)})
	var conns []transport.Conn
	for range 4 {
		c, _, err := dialOnce(t, l.folder.path, DialConfig{})
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	_ = l.Close()
	for _, c := range conns {
		m := newMailbox()
		c.Start(m)
		select {
		case err := <-m.closed:
			if !errors.Is(err, transport.ErrPeerGone) {
				t.Errorf("closed with %v", err)
			}
		case <-time.After(patience):
			t.Fatal("client does not see that the server closed")
		}
		_ = c.Close()
	}
}
