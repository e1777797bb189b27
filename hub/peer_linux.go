package hub

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// uidOf is the user at the other end of a TCP connection of this host, from the kernel's list of sockets.
func uidOf(near, far net.Addr) (uid int, err error) {
	a, b := addrPort(near), addrPort(far)
	if !a.IsValid() || !b.IsValid() {
		return 0, fmt.Errorf("%v is no TCP connection", far)
	}
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		uid, err = uidIn(file, b, a)
		if err == nil || !errors.Is(err, errNoSocket) {
			return uid, err
		}
	}
	return 0, err
}

var errNoSocket = errors.New("the kernel does not list who asks")

func addrPort(a net.Addr) netip.AddrPort {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// uidIn looks for the connection from one address to another. Columns are those of proc_pid_net(5): address, peer, state, … uid.
func uidIn(file string, from, to netip.AddrPort) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errNoSocket, err)
	}
	defer f.Close()
	const established = "01"
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 8 || fields[3] != established || kernelAddr(fields[1]) != from || kernelAddr(fields[2]) != to {
			continue
		}
		return strconv.Atoi(fields[7])
	}
	return 0, errors.Join(errNoSocket, lines.Err())
}

// kernelAddr reads an address as the kernel writes it: words of four bytes, of which the host's order is little endian wherever Stile runs.
func kernelAddr(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	n, errPort := strconv.ParseUint(port, 16, 16)
	if err != nil || errPort != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n))
}
