package hostmap

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stile-ipc/stile/routemap"
)

func said(edges []Edge) string {
	var b strings.Builder
	for _, e := range edges {
		arrow := "→"
		if !e.Directed {
			arrow = "–"
		}
		end := func(e End) string {
			if e.PID == 0 {
				return e.Address
			}
			return fmt.Sprint(e.PID)
		}
		fmt.Fprintf(&b, "%s %s %s %s %q ×%d %d\n", end(e.From), arrow, end(e.To), e.Transport, e.Via, e.Count, e.Unread)
	}
	return b.String()
}

// TestBuild: the two ends of each way are joined, whoever is found first, and what nobody can tell is not told.
func TestBuild(t *testing.T) {
	at := netip.MustParseAddrPort
	procs := []proc{
		{Process: Process{PID: 10}, sockets: []uint64{1, 1, 3, 5, 20, 22, 24, 26, 90}, pipes: []pipeEnd{{inode: 50, writes: true}, {inode: 50, writes: true}, {inode: 52, reads: true, writes: true}}, shares: map[string]string{"0:1 7": "/memfd:ring", "8:1 9": "/var/all"}},
		{Process: Process{PID: 11}, sockets: []uint64{2, 4, 6, 8, 21, 30, 27}, pipes: []pipeEnd{{inode: 50, reads: true}}, shares: map[string]string{"0:1 7": "/memfd:ring"}},
		{Process: Process{PID: 12}, sockets: []uint64{4, 7, 23, 31, 92, 93}, pipes: []pipeEnd{{inode: 50, reads: true}, {inode: 51, writes: true}}},
	}
	for pid := 100; pid < 120; pid++ {
		procs = append(procs, proc{Process: Process{PID: pid}, shares: map[string]string{"8:1 9": "/var/all"}})
	}
	unixes := []unixSocket{
		{inode: 2, peer: 1, name: "/run/a", kind: routemap.UnixStream, unread: 5}, {inode: 1, peer: 2, kind: routemap.UnixStream, unread: 7},
		{inode: 3, peer: 4, kind: routemap.UnixStream}, {inode: 4, peer: 3, name: "/run/b", kind: routemap.UnixStream}, // which 12 has inherited from 11
		{inode: 7, peer: 8, kind: routemap.UnixSeqpacket}, {inode: 8, peer: 7, kind: routemap.UnixSeqpacket}, // a pair of sockets
		{inode: 90, peer: 91, kind: routemap.UnixStream}, {inode: 91, peer: 90, name: "/run/root", kind: routemap.UnixStream}, // another user's
		{inode: 5, peer: 6, kind: routemap.UnixDgram}, {inode: 6, name: "@log", kind: routemap.UnixDgram}, // one way
		{inode: 92, peer: 500, name: "/run/far", kind: routemap.UnixStream}, {inode: 93, peer: 501, kind: routemap.UnixStream}, // of a namespace that nobody looked at
		{inode: 95, peer: 96, kind: routemap.UnixStream}, {inode: 97, kind: routemap.UnixStream},
	}
	tcps := []tcpSocket{
		{inode: 30, local: at("0.0.0.0:80"), listens: true, netns: 1}, {inode: 31, local: at("[::]:90"), listens: true, netns: 2},
		{inode: 20, local: at("127.0.0.1:5000"), other: at("127.0.0.1:80"), netns: 1, unread: 3}, {inode: 21, local: at("127.0.0.1:80"), other: at("127.0.0.1:5000"), netns: 1},
		{inode: 22, local: at("10.0.0.1:5001"), other: at("10.0.0.2:90"), netns: 1}, {inode: 23, local: at("10.0.0.2:90"), other: at("10.0.0.1:5001"), netns: 2},
		{inode: 24, local: at("10.0.0.1:5002"), other: at("192.0.2.7:443"), netns: 1}, {inode: 27, local: at("10.0.0.1:80"), other: at("192.0.2.9:777"), netns: 1},
		{inode: 26, local: at("127.0.0.1:5003"), other: at("127.0.0.1:5432"), netns: 1}, {inode: 99, local: at("127.0.0.1:5432"), other: at("127.0.0.1:5003"), netns: 1},
		{inode: 98, local: at("127.0.0.1:5432"), listens: true, netns: 1},
	}
	want := `192.0.2.9 → 11 tcp "10.0.0.1:80" ×1 0
? – 12 unix-stream "" ×1 0
? → 12 unix-stream "/run/far" ×1 0
10 → 192.0.2.7:443 tcp "192.0.2.7:443" ×1 0
10 → ? tcp-loopback "127.0.0.1:5432" ×1 0
10 → ? unix-stream "/run/root" ×1 0
10 → 11 pipe "" ×1 9
10 → 11 shm "/memfd:ring" ×1 0
10 → 11 tcp-loopback "127.0.0.1:80" ×1 3
10 → 11 unix-dgram "@log" ×1 0
10 → 11 unix-stream "/run/a" ×1 12
10 → 11 unix-stream "/run/b" ×1 0
10 → 12 pipe "" ×1 9
10 → 12 tcp "10.0.0.2:90" ×1 0
10 → 12 unix-stream "/run/b" ×1 0
11 – 12 unix-seqpacket "" ×1 0
`
	pipes := pipesOf(procs)
	if len(pipes) != 1 {
		t.Fatalf("%+v", pipes)
	}
	pipes[0].queue.sent = 9
	all := build(procs, unixes, tcps, pipes)
	for _, e := range all {
		if known := map[string]string{routemap.Pipe: "fd", routemap.SHM: "maps"}[e.Transport]; e.Known != known && (known != "" || e.Known != "sock_diag") {
			t.Errorf("%s is known by %s", e.Transport, e.Known)
		}
	}
	if got := said(all); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
