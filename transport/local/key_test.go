package local

import (
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
)

type address struct{ network, text string }

func (a address) Network() string { return a.network }
func (a address) String() string  { return a.text }

func keyOf(t *testing.T, a net.Addr) Key {
	t.Helper()
	k, err := KeyOf(a)
	if err != nil {
		t.Fatalf("%v: %v", a, err)
	}
	return k
}

func TestKeyOf(t *testing.T) {
	v4 := net.ParseIP("192.0.2.1")
	same := [][]net.Addr{
		{ // however an address is written
			&net.TCPAddr{IP: v4, Port: 7}, &net.TCPAddr{IP: v4.To4(), Port: 7},
			address{"tcp", "192.0.2.1:7"}, address{"tcp4", "[::ffff:192.0.2.1]:7"},
		},
		{&net.TCPAddr{IP: net.ParseIP("2001:db8::1"), Port: 7}, address{"tcp6", "[2001:DB8:0::1]:7"}},
		// calling a wildcard address is calling loopback
		{address{"tcp", "127.0.0.1:7"}, address{"tcp", "0.0.0.0:7"}, &net.TCPAddr{IP: net.IPv4zero, Port: 7}},
		{address{"tcp", "[::1]:7"}, address{"tcp", "[::]:7"}},
		{address{"tcp", "127.0.0.2:7"}},
		{address{"tcp", "192.0.2.1:8"}},
		{address{"tcp", "[fe80::1%eth0]:7"}},
		{address{"tcp", "[fe80::1%eth1]:7"}},
		{address{"unix", "@name"}, &net.UnixAddr{Name: "\x00name", Net: "unix"}},
		{address{"unix", "@Name"}},
	}
	seen := map[Key]bool{}
	names := map[string]bool{}
	for _, as := range same {
		k := keyOf(t, as[0])
		if seen[k] || names[entryName(k)] {
			t.Errorf("%v: key %q names another address too", as[0], k)
		}
		seen[k], names[entryName(k)] = true, true
		for _, a := range as[1:] {
			if other := keyOf(t, a); other != k {
				t.Errorf("%v: %q, but %v: %q", as[0], k, a, other)
			}
		}
	}
	for _, a := range []net.Addr{
		nil, address{"tcp", "localhost:7"}, address{"tcp", "192.0.2.1"}, address{"tcp", "192.0.2.1:0"},
		address{"tcp", ""}, address{"udp", "192.0.2.1:7"}, address{"bufconn", "bufconn"}, address{"unix", ""},
		address{"unixgram", "/x"}, address{"unix", "@" + strings.Repeat("x", 600)},
	} {
		if k, err := KeyOf(a); !errors.Is(err, ErrAddress) {
			t.Errorf("%v: %q, %v", a, k, err)
		}
		if k, err := KeysFor(a); !errors.Is(err, ErrAddress) {
			t.Errorf("%v: %q, %v", a, k, err)
		}
	}
}

func TestKeysForWildcard(t *testing.T) {
	for _, tt := range []struct {
		addr             string
		listen6, listen4 bool
	}{{"0.0.0.0:7", false, true}, {"[::]:7", true, true}} {
		keys, err := KeysFor(address{"tcp", tt.addr})
		if err != nil {
			t.Fatal(err)
		}
		if has := slices.Contains(keys, keyOf(t, address{"tcp", "127.0.0.1:7"})); has != tt.listen4 {
			t.Errorf("%s: loopback is %v: %q", tt.addr, has, keys)
		}
		if has := slices.Contains(keys, keyOf(t, address{"tcp", "[::1]:7"})); has != tt.listen6 {
			t.Errorf("%s: IPv6 loopback is %v: %q", tt.addr, has, keys)
		}
		addrs, err := net.InterfaceAddrs()
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs[:min(len(addrs), maxAddresses/2)] {
			ip := a.(*net.IPNet).IP
			if ip.To4() == nil && (!tt.listen6 || ip.IsLinkLocalUnicast()) {
				continue
			}
			if !slices.Contains(keys, keyOf(t, &net.TCPAddr{IP: ip, Port: 7})) {
				t.Errorf("%s: %v is missing in %q", tt.addr, ip, keys)
			}
		}
		if sorted := slices.Sorted(slices.Values(keys)); len(slices.Compact(sorted)) != len(keys) || len(keys) > maxAddresses {
			t.Errorf("%s: %d keys: %q", tt.addr, len(keys), keys)
		}
	}
}

func TestKeysForListener(t *testing.T) {
	for _, network := range []string{"tcp", "tcp4"} {
		l, err := net.Listen(network, ":0")
		if err != nil {
			t.Fatal(err)
		}
		keys, err := KeysForListener(l)
		_ = l.Close()
		want := keyOf(t, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: l.Addr().(*net.TCPAddr).Port})
		if err != nil || !slices.Contains(keys, want) {
			t.Errorf("%s: %q, %v, want %q in it", network, keys, err, want)
		}
	}
	keys, err := keysFor(address{"tcp", "[::]:7"}, true)
	if err != nil || slices.Contains(keys, keyOf(t, address{"tcp", "127.0.0.1:7"})) {
		t.Errorf("IPv6 only: %q, %v", keys, err)
	}
}

func TestEntryName(t *testing.T) {
	for _, k := range []Key{"../x", ".", "..", ".hidden", "a/b", "Name", "nul\x00", "h-ab", Key(strings.Repeat("a", maxKey))} {
		n := entryName(k)
		if !strings.HasPrefix(n, hashed) || len(n) > 80 || strings.ContainsAny(n, "/\x00") {
			t.Errorf("%q: %q", k, n)
		}
	}
	if n := entryName("tcp-192.0.2.1_7"); n != "tcp-192.0.2.1_7" {
		t.Errorf("plain key became %q", n)
	}
}
