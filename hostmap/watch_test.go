package hostmap

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/stile-ipc/stile/routemap"
)

// TestPressures: who waits is told from the shares on that are defined, by who has the sockets; several of a way count once a sample.
func TestPressures(t *testing.T) {
	at := netip.MustParseAddrPort
	const samples = 100
	for name, c := range map[string]struct {
		of   func(i int) queue // of the client's unix socket, TCP's, and the backlog
		want string
	}{
		"nothing":      {func(int) queue { return queue{buffer: 100, limit: 100} }, ""},
		"seldom":       {func(i int) queue { return queue{sent: 100 * uint64(1-min(i/9, 1)), buffer: 100} }, "unix-stream false true 9 9 0; tcp-loopback false true 9 9 0; "},
		"often":        {func(i int) queue { return queue{sent: 90 * uint64(1-min(i/10, 1)), buffer: 100} }, "unix-stream true true 10 10 0; tcp-loopback true true 10 10 0; "},
		"not quite":    {func(int) queue { return queue{sent: 89, buffer: 100} }, "unix-stream false true 0 100 0; tcp-loopback false true 0 100 0; "},
		"not deep":     {func(int) queue { return queue{sent: 79, buffer: 100} }, ""},
		"no buffer":    {func(int) queue { return queue{sent: 79} }, ""},
		"backlog":      {func(i int) queue { return queue{backlog: uint64(1 - min(i/5, 1)), limit: 100} }, "tcp true false 0 0 5; "},
		"short":        {func(i int) queue { return queue{backlog: uint64(1 - min(i/4, 1)), limit: 100} }, ""},
		"long backlog": {func(i int) queue { return queue{backlog: 80, limit: 100} }, "tcp true true 0 100 100; "},
		"limited": {func(i int) queue {
			return queue{busy: time.Duration(i+50) * time.Millisecond, limited: time.Duration(i+50) * time.Millisecond / 10}
		}, "tcp-loopback true false 0 0 0; "},
		"little": {func(i int) queue {
			return queue{busy: time.Duration(i) * time.Millisecond, limited: time.Duration(i) * 99 * time.Microsecond}
		}, ""},
		"not busy": {func(i int) queue {
			return queue{busy: time.Duration(i) * 90 * time.Microsecond, limited: time.Duration(i) * 90 * time.Microsecond}
		}, ""},
		"long ago": {func(int) queue { return queue{busy: time.Hour, limited: time.Hour} }, ""},
		"backwards": {func(i int) queue {
			return queue{busy: time.Hour - time.Duration(i), limited: time.Hour - time.Duration(i)}
		}, ""},
	} {
		w := newWatch()
		w.know([]proc{{Process: Process{PID: 1}, sockets: []uint64{1, 3, 11}}, {Process: Process{PID: 2}, sockets: []uint64{2, 4, 12, 20}}})
		for i := range samples {
			q := c.of(i)
			without := queue{sent: q.sent, buffer: q.buffer}
			w.sample([]unixSocket{
				{inode: 1, peer: 2, kind: routemap.UnixStream, queue: without}, {inode: 2, peer: 1, name: "/s", kind: routemap.UnixStream},
				{inode: 11, peer: 12, kind: routemap.UnixStream, queue: without}, {inode: 12, peer: 11, name: "/s", kind: routemap.UnixStream},
				{inode: 30, peer: 31, kind: routemap.UnixStream, queue: queue{sent: 1, buffer: 1}}, // whose peer nobody tells of
			}, []tcpSocket{
				{inode: 3, local: at("127.0.0.1:5000"), other: at("127.0.0.1:80"), queue: queue{sent: q.sent, buffer: q.buffer, busy: q.busy, limited: q.limited}},
				{inode: 4, local: at("127.0.0.1:80"), other: at("127.0.0.1:5000")}, {inode: 20, local: at("127.0.0.1:80"), listens: true, queue: queue{backlog: q.backlog, limit: q.limit}},
			}, nil)
		}
		got := ""
		for _, p := range w.pressures(time.Second) {
			if p.Via != map[string]string{routemap.UnixStream: "/s", routemap.TCPLoopback: "127.0.0.1:80", routemap.TCP: "127.0.0.1:80"}[p.Transport] || p.To.PID != 2 || p.Samples != samples {
				t.Errorf("%s: %+v", name, p)
			}
			got += fmt.Sprint(p.Transport, " ", p.Blocking, " ", p.Backpressure, " ", p.Full, " ", p.Deep, " ", p.Backlog, "; ")
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}
