package hostmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/stile-ipc/stile/routemap"
)

// Numbers of the kernel's: uapi/linux/sock_diag.h, unix_diag.h, inet_diag.h, tcp.h.
const (
	established = 1
	listening   = 10

	unixRequest = 24 // bytes of struct unix_diag_req
	unixMessage = 16
	showName    = 1 << 0
	showFile    = 1 << 1
	showPeer    = 1 << 2
	showQueue   = 1 << 4
	showMemory  = 1 << 5
	unixName    = 0
	unixFile    = 1
	unixPeer    = 2
	unixQueue   = 4
	unixMemory  = 5

	inetRequest = 56 // bytes of struct inet_diag_req_v2
	inetMessage = 72
	inetInfo    = 2
	inetMemory  = 7

	memSent   = 2 // of SK_MEMINFO: what a unix socket has sent, and nobody has read
	memBuffer = 3
	memQueued = 5 // what a TCP socket has to send

	infoBusy    = 168 // offset in struct tcp_info
	infoLimited = 176
)

var unixKinds = map[uint8]string{unix.SOCK_STREAM: routemap.UnixStream, unix.SOCK_DGRAM: routemap.UnixDgram, unix.SOCK_SEQPACKET: routemap.UnixSeqpacket}

// question is what sock_diag is asked, as it is.
type question []byte

func (q question) Len() int          { return len(q) }
func (q question) Serialize() []byte { return q }

// ask asks for sockets. What changes meanwhile may be absent.
func ask(q question, found func(msg []byte)) error {
	r := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	r.AddData(q)
	err := r.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(msg []byte) bool {
		found(msg)
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil
	}
	return err
}

// attributes calls found with each attribute behind a message.
func attributes(b []byte, found func(kind uint16, value []byte)) {
	for len(b) >= 4 {
		n := int(binary.NativeEndian.Uint16(b))
		if n < 4 || n > len(b) {
			return
		}
		found(binary.NativeEndian.Uint16(b[2:])&^0xc000, b[4:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

// uint32At is one of numbers; 0: there are not so many.
func uint32At(b []byte, i int) uint64 {
	if len(b) < 4*i+4 {
		return 0
	}
	return uint64(binary.NativeEndian.Uint32(b[4*i:]))
}

func sockets(netns uint64) (unixes []unixSocket, tcps []tcpSocket, err error) {
	q := make(question, unixRequest)
	q[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(q[4:], ^uint32(0))
	binary.NativeEndian.PutUint32(q[12:], showName|showFile|showPeer|showQueue|showMemory)
	if err := ask(q, func(msg []byte) {
		if s, is := parseUnix(msg); is {
			unixes = append(unixes, s)
		}
	}); err != nil {
		return nil, nil, fmt.Errorf("sock_diag, unix: %w", err)
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		q := make(question, inetRequest)
		q[0], q[1], q[2] = family, unix.IPPROTO_TCP, 1<<(inetInfo-1)|1<<(inetMemory-1)
		binary.NativeEndian.PutUint32(q[4:], 1<<established|1<<listening)
		if err := ask(q, func(msg []byte) {
			if s, is := parseTCP(msg); is {
				s.netns = netns
				tcps = append(tcps, s)
			}
		}); err != nil {
			return nil, nil, fmt.Errorf("sock_diag, TCP: %w", err)
		}
	}
	return unixes, tcps, nil
}

// parseUnix reads struct unix_diag_msg and what follows.
func parseUnix(msg []byte) (s unixSocket, is bool) {
	if len(msg) < unixMessage {
		return s, false
	}
	s = unixSocket{kind: unixKinds[msg[1]], listens: msg[2] == listening, inode: uint64(binary.NativeEndian.Uint32(msg[4:]))}
	attributes(msg[unixMessage:], func(kind uint16, value []byte) {
		switch kind {
		case unixName:
			s.name = socketName(string(value))
		case unixFile:
			s.file = uint32(uint32At(value, 0))
		case unixPeer:
			s.peer = uint32At(value, 0)
		case unixQueue:
			if s.listens {
				s.queue.backlog, s.queue.limit = uint32At(value, 0), uint32At(value, 1)
			} else {
				s.unread = uint32At(value, 0)
			}
		case unixMemory:
			s.queue.sent, s.queue.buffer = uint32At(value, memSent), uint32At(value, memBuffer)
		}
	})
	return s, true
}

// parseTCP reads struct inet_diag_msg and what follows.
func parseTCP(msg []byte) (s tcpSocket, is bool) {
	if len(msg) < inetMessage {
		return s, false
	}
	n := 4
	if msg[0] == unix.AF_INET6 {
		n = 16
	}
	port := func(at int) uint16 { return binary.BigEndian.Uint16(msg[at:]) }
	s = tcpSocket{
		listens: msg[1] == listening, local: addrPort(msg[8:8+n], port(4)), other: addrPort(msg[24:24+n], port(6)), inode: uint64(binary.NativeEndian.Uint32(msg[68:])),
	}
	received, limit := uint64(binary.NativeEndian.Uint32(msg[56:])), uint64(binary.NativeEndian.Uint32(msg[60:]))
	if s.listens {
		s.queue.backlog, s.queue.limit = received, limit
	} else {
		s.unread = received
	}
	attributes(msg[inetMessage:], func(kind uint16, value []byte) {
		switch kind {
		case inetMemory:
			s.queue.sent, s.queue.buffer = uint32At(value, memQueued), uint32At(value, memBuffer)
		case inetInfo:
			if len(value) >= infoLimited+8 {
				s.queue.busy = time.Duration(binary.NativeEndian.Uint64(value[infoBusy:])) * time.Microsecond
				s.queue.limited = time.Duration(binary.NativeEndian.Uint64(value[infoLimited:])) * time.Microsecond
			}
		}
	})
	return s, true
}
