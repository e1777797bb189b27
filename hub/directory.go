package hub

import (
	"net"
	"net/netip"
	"strings"

	"github.com/stile-ipc/stile/hub/hubpb"
	"github.com/stile-ipc/stile/routemap"
)

// directory tells which service listens where.
type directory map[place]string

// place is an address on a host, or what all hosts mean by it.
type place struct {
	boot string // the host's; empty: all hosts
	at   string
}

// contested is what is known of a place where several services listen, such as in network namespaces of their own.
const contested = ""

func (d directory) add(p *hubpb.Process) {
	put := func(boot, at string) {
		where := place{boot, at}
		if other, taken := d[where]; taken && other != p.GetService() {
			d[where] = contested
		} else {
			d[where] = p.GetService()
		}
	}
	for _, l := range p.GetListens() {
		if p.GetBoot() != "" {
			put(p.GetBoot(), l)
			if _, port, err := net.SplitHostPort(l); err == nil {
				put(p.GetBoot(), ":"+port)
			}
		}
		if host, _, err := net.SplitHostPort(l); err == nil && !ownHost(host) {
			put("", l)
		}
	}
}

// find returns the service that an address means to a process of a host; empty: it is not known.
func (d directory) find(boot, address string) string {
	if path, is := strings.CutPrefix(address, "unix:"); is {
		return d[place{boot, strings.TrimPrefix(path, "//")}]
	}
	if name, is := strings.CutPrefix(address, "unix-abstract:"); is {
		return d[place{boot, "@" + name}]
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return ""
	}
	if ownHost(host) {
		return d[place{boot, ":" + port}]
	}
	if service := d[place{boot, address}]; service != "" {
		return service
	}
	return d[place{"", address}]
}

// called is who listens at an address, as a process means it.
func (d directory) called(from *hubpb.Process, address string) routemap.Node {
	if service := d.find(from.GetBoot(), address); service != "" {
		return routemap.Node{Kind: routemap.Service, Name: service}
	}
	return routemap.Node{Kind: routemap.External, Name: address}
}

// ownHost tells the names that mean another host to each.
func ownHost(name string) bool {
	ip, err := netip.ParseAddr(name)
	return name == "" || name == "localhost" || err == nil && (ip.IsLoopback() || ip.IsUnspecified())
}
