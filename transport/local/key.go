package local

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// maxAddresses bounds the keys of one wildcard listener. Hosts with more
// addresses than this carry them for a proxy, not for their servers.
const maxAddresses = 64

// KeysFor gives the keys under which a listener's address is found.
//
// A TCP address gives a key that names the network namespace, for callers in it,
// and, unless it is a loopback or link-local one, a key that does not, for callers
// to whom it is another's address: so containers that share the folder find each
// other, and an address that exists in two namespaces is not confused. A wildcard
// address gives the keys of every address the host's interfaces have now (at most
// 64 keys are used) and of loopback; an IPv6 wildcard is taken to accept IPv4
// too, see [KeysForListener]. The key of a unix socket is its file's device and inode: the
// same seen through another mount, and another after a restart. A socket in the
// abstract namespace is known by name and network namespace.
func KeysFor(a net.Addr) ([]Key, error) { return keysFor(a, false) }

// KeysForListener is [KeysFor] of the listener's address, but does not claim the
// IPv4 addresses for a listener whose socket takes IPv6 only.
func KeysForListener(l net.Listener) ([]Key, error) {
	only6 := false
	if c, ok := l.(syscall.Conn); ok {
		only6 = takesOnly6(c)
	}
	return keysFor(l.Addr(), only6)
}

func keysFor(a net.Addr, only6 bool) ([]Key, error) {
	ap, ok, err := tcpAddr(a)
	if err != nil {
		return nil, err
	}
	if !ok {
		k, err := KeyOf(a)
		if err != nil {
			return nil, err
		}
		return []Key{k}, nil
	}
	if !ap.Addr().IsUnspecified() {
		return tcpKeys(ap)
	}
	var keys []Key
	for _, ip := range hostAddrs() {
		if ip.Is4() && only6 || ip.Is6() && ap.Addr().Is4() || len(keys) >= maxAddresses {
			continue
		}
		ks, err := tcpKeys(netip.AddrPortFrom(ip, ap.Port()))
		if err != nil {
			continue // no namespace identity: other addresses can still be found
		}
		for _, k := range ks {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%w: %v: no interface has an address", ErrAddress, a)
	}
	return keys, nil
}

// KeyOf gives the key to look for when calling a. A wildcard address is called
// at loopback, as the kernel does. For a unix socket that is not there it wraps
// [ErrNoEntry].
func KeyOf(a net.Addr) (Key, error) {
	ap, ok, err := tcpAddr(a)
	if err != nil {
		return "", err
	}
	if ok {
		return tcpKey(ap, !wide(ap.Addr()) || slices.Contains(hostAddrs(), ap.Addr()))
	}
	if a.Network() != "unix" {
		return "", fmt.Errorf("%w: network %q", ErrAddress, a.Network())
	}
	name := a.String()
	switch {
	case name == "":
		return "", fmt.Errorf("%w: unix socket without a name", ErrAddress)
	case name[0] == '@' || name[0] == 0:
		ns, err := netNamespace()
		if err != nil {
			return "", fmt.Errorf("local: key of %q: %w", name, err)
		}
		return checkKey(Key("abstract-" + name[1:] + "@" + ns))
	}
	return socketKey(name)
}

// tcpAddr reads any TCP address; ok is false for other networks.
func tcpAddr(a net.Addr) (ap netip.AddrPort, ok bool, err error) {
	if a == nil {
		return ap, false, fmt.Errorf("%w: no address", ErrAddress)
	}
	if !strings.HasPrefix(a.Network(), "tcp") {
		return ap, false, nil
	}
	if t, is := a.(*net.TCPAddr); is {
		ap = t.AddrPort()
		if len(t.IP) == 0 {
			ap = netip.AddrPortFrom(netip.IPv6Unspecified(), uint16(t.Port))
		}
	} else if ap, err = netip.ParseAddrPort(a.String()); err != nil {
		return ap, false, fmt.Errorf("%w: %q is not an IP address and port", ErrAddress, a.String())
	}
	if !ap.Addr().IsValid() || ap.Port() == 0 {
		return ap, false, fmt.Errorf("%w: %v", ErrAddress, a)
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), true, nil
}

// wide tells addresses that mean the same in every network namespace that can
// reach them.
func wide(ip netip.Addr) bool {
	return !ip.IsUnspecified() && !ip.IsLoopback() && !ip.IsLinkLocalUnicast()
}

// tcpKeys gives the keys of a server's address: for those that call it from its own
// network namespace, and, if it is known beyond, for all others.
func tcpKeys(ap netip.AddrPort) ([]Key, error) {
	own, err := tcpKey(ap, true)
	if !wide(ap.Addr()) {
		return []Key{own}, err
	}
	others, oerr := tcpKey(ap, false)
	if err != nil || oerr != nil {
		return []Key{others}, oerr // without a namespace identity there is one key
	}
	return []Key{own, others}, nil
}

// tcpKey gives the key of an address as seen from this network namespace, if own,
// or from any other.
func tcpKey(ap netip.AddrPort, own bool) (Key, error) {
	ip := ap.Addr()
	if ip.IsUnspecified() {
		if ip.Is4() {
			ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		} else {
			ip = netip.IPv6Loopback()
		}
	}
	if wide(ip) {
		ip = ip.WithZone("")
	}
	if !own {
		return checkKey(Key("tcp-" + netip.AddrPortFrom(ip, ap.Port()).String()))
	}
	ns, err := netNamespace()
	if err != nil {
		return "", fmt.Errorf("local: key of %v: %w", ap, err)
	}
	return checkKey(Key("tcp-" + netip.AddrPortFrom(ip, ap.Port()).String() + "@" + ns))
}

func checkKey(k Key) (Key, error) {
	if k == "" || len(k) > maxKey {
		return "", fmt.Errorf("%w: key of %d bytes, at most %d", ErrAddress, len(k), maxKey)
	}
	return k, nil
}

// hostAddrs are the addresses at which a wildcard listener is reached, loopback
// first.
func hostAddrs() []netip.Addr {
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	ifs, err := net.Interfaces()
	if err != nil {
		return addrs
	}
	for _, i := range ifs {
		// kube-ipvs0 carries every service address of a Kubernetes cluster; calls
		// to those go to some pod, not to who listens here.
		if i.Flags&net.FlagUp == 0 || i.Name == "kube-ipvs0" {
			continue
		}
		as, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range as {
			p, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			ip, ok := netip.AddrFromSlice(p.IP)
			if !ok {
				continue
			}
			if ip = ip.Unmap(); ip.Is6() && ip.IsLinkLocalUnicast() {
				ip = ip.WithZone(i.Name)
			}
			addrs = append(addrs, ip)
		}
	}
	return addrs
}

// entryName is the file name of a key: the key itself where every file system
// takes it as it is, its hash otherwise.
func entryName(k Key) string {
	plain := len(k) <= 80 && k[0] != '.' && !strings.HasPrefix(string(k), hashed)
	for i := 0; i < len(k) && plain; i++ {
		c := k[i]
		plain = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("-_.@[]", c) >= 0 ||
			c == ':' && runtime.GOOS != "windows"
	}
	if plain {
		return string(k)
	}
	sum := sha256.Sum256([]byte(k))
	return hashed + hex.EncodeToString(sum[:16])
}

const hashed = "h-"
