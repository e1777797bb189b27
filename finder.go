package stile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/serviceconfig"

	"github.com/stile-ipc/stile/transport"
	"github.com/stile-ipc/stile/transport/wire"
)

// finder resolves a target with the resolver that grpc-go itself would use, and
// keeps the newest answer.
type finder struct {
	e      *entrance
	scheme string
	res    resolver.Resolver
	failed string // why there is no resolver

	mu     sync.Mutex
	addrs  []string
	policy string        // load-balancing policy the resolver asks for
	first  chan struct{} // closed by the first answer
	err    error         // the resolver's last
	have   bool
	looked map[string]lookup // names that were looked up
	hinted time.Time         // when the resolver was last told to look again
}

// place is an address as the resolver named it.
type place struct {
	name string
	addr net.Addr
}

type lookup struct {
	addrs []net.Addr
	until time.Time
}

const (
	// lookupFor is how long a name that a passthrough target holds stays looked up.
	lookupFor = 5 * time.Second
	// hintEvery is how often a resolver is told that its answer may be old.
	hintEvery = 5 * time.Second
)

// resolverConn is what a finder shows its resolver.
type resolverConn struct {
	resolver.ClientConn // room for methods of newer versions
	*finder
}

func newFinder(e *entrance) *finder {
	f := &finder{e: e, first: make(chan struct{})}
	u, b, err := f.parseTarget(e.cc)
	if err != nil {
		f.failed = err.Error()
		return f
	}
	opts := resolver.BuildOptions{DisableServiceConfig: e.set.disableServiceConfig, DialCreds: insecure.NewCredentials()}
	f.res, err = b.Build(resolver.Target{URL: *u}, resolverConn{finder: f}, opts)
	if err != nil {
		f.failed = err.Error()
	}
	return f
}

// parseTarget reads the target as grpc-go does: as it was given if there is a
// resolver for its scheme (the canonical form of unix:path is another path), else
// under the default scheme.
func (f *finder) parseTarget(cc *grpc.ClientConn) (*url.URL, resolver.Builder, error) {
	for _, target := range []string{cc.Target(), cc.CanonicalTarget()} {
		u, err := url.Parse(target)
		if err != nil {
			continue
		}
		f.scheme = u.Scheme
		b := f.builder()
		if b != nil && reflect.TypeOf(b).String() == "*manual.Resolver" {
			return nil, nil, errors.New("a manual.Resolver serves one connection, which is grpc-go's")
		}
		if b != nil {
			return u, b, nil
		}
	}
	return nil, nil, fmt.Errorf("no resolver for target %q", cc.Target())
}

func (f *finder) builder() resolver.Builder {
	for _, b := range f.e.set.resolvers {
		if b.Scheme() == f.scheme {
			return b
		}
	}
	return resolver.Get(f.scheme)
}

func (f *finder) close() {
	if f.res != nil {
		f.res.Close()
	}
}

// known reports whether the resolver has answered.
func (f *finder) known() bool {
	select {
	case <-f.first:
		return true
	default:
		return f.failed != ""
	}
}

// complaint is what there is to say of a resolution without an answer.
func (f *finder) complaint() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		return ""
	}
	return ": " + f.err.Error()
}

// again hints to the resolver that its answer may be old. Only the attempt under
// way calls it.
func (f *finder) again() {
	if f.res != nil && time.Since(f.hinted) > hintEvery {
		f.hinted = time.Now()
		f.res.ResolveNow(resolver.ResolveNowOptions{})
	}
}

// UpdateState implements [resolver.ClientConn].
func (c resolverConn) UpdateState(s resolver.State) error {
	var addrs []string
	for _, a := range s.Addresses {
		addrs = append(addrs, a.Addr)
	}
	if len(addrs) == 0 {
		for _, ep := range s.Endpoints {
			for _, a := range ep.Addresses {
				addrs = append(addrs, a.Addr)
			}
		}
	}
	config := c.e.set.defaultServiceConfig
	policy := c.e.set.policy
	if r := s.ServiceConfig; r != nil && !c.e.set.disableServiceConfig {
		if p, ok := r.Config.(*parsedConfig); ok && r.Err == nil {
			config, policy = p.ServiceConfig, p.policy
		}
	}
	c.e.config.Store(config)
	c.mu.Lock()
	c.addrs, c.policy = addrs, policy
	if !c.have {
		c.have = true
		close(c.first)
	}
	c.mu.Unlock()
	c.e.reconsider(addrs, spreads(policy, addrs) != "")
	return nil
}

// spreads says why calls to these addresses are grpc-go's to place, if they are.
func spreads(policy string, addrs []string) string {
	switch {
	case strings.HasPrefix(policy, healthChecked):
		return "load-balancing policy " + policy + " chooses by health"
	case policy != "" && len(addrs) > 1:
		return "load-balancing policy " + policy + " spreads calls over " + strconv.Itoa(len(addrs)) + " addresses"
	}
	return ""
}

// ReportError implements [resolver.ClientConn]. gRPC's own resolver reports the
// same error to the callers.
func (c resolverConn) ReportError(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	if !c.have {
		c.have = true
		close(c.first)
	}
}

// NewAddress implements [resolver.ClientConn].
func (c resolverConn) NewAddress(addrs []resolver.Address) {
	_ = c.UpdateState(resolver.State{Addresses: addrs})
}

// parsedConfig is a service config as grpc-go parsed it, and the policy it names.
type parsedConfig struct {
	*grpc.ServiceConfig
	policy string
}

// ParseServiceConfig implements [resolver.ClientConn] with grpc-go's own parser,
// which it only shows through a connection's default config.
func (c resolverConn) ParseServiceConfig(js string) *serviceconfig.ParseResult {
	cc, err := grpc.NewClient("passthrough:///config", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(js))
	if err != nil {
		return &serviceconfig.ParseResult{Err: err}
	}
	defer cc.Close()
	return &serviceconfig.ParseResult{Config: &parsedConfig{readClient(cc).defaultServiceConfig, policyOf(js)}}
}

// healthChecked marks a policy that heeds health checks, which the service config
// asks for. pick_first does not heed them.
const healthChecked = "health-checked "

// policyOf returns the first load-balancing policy a service config names, ""
// for the default, which is pick_first.
func policyOf(js string) string {
	var sc struct {
		LoadBalancingPolicy string
		LoadBalancingConfig []map[string]json.RawMessage
		HealthCheckConfig   *json.RawMessage
	}
	if json.Unmarshal([]byte(js), &sc) != nil {
		return ""
	}
	policy := strings.ToLower(sc.LoadBalancingPolicy)
	if len(sc.LoadBalancingConfig) > 0 {
		for name := range sc.LoadBalancingConfig[0] {
			policy = name
		}
	}
	if policy == "pick_first" {
		policy = ""
	}
	if policy != "" && sc.HealthCheckConfig != nil {
		policy = healthChecked + policy
	}
	return policy
}

// places waits for the first answer and returns the places to knock at, or the
// reason why none will do.
func (f *finder) places(ctx context.Context) ([]place, string) {
	if f.failed != "" {
		return nil, f.failed
	}
	select {
	case <-f.first:
	case <-ctx.Done():
		return nil, ""
	}
	f.mu.Lock()
	names, policy := f.addrs, f.policy
	f.mu.Unlock()
	if reason := spreads(policy, names); reason != "" {
		return nil, reason
	}
	var out []place
	for _, name := range names {
		for _, a := range f.parse(ctx, name) {
			out = append(out, place{name, a})
		}
	}
	return out, ""
}

// parse turns an address as resolvers give it into what a listener has. Names
// are looked up, as grpc-go's dialer does with what a passthrough target holds.
// Only the attempt under way calls it.
func (f *finder) parse(ctx context.Context, name string) []net.Addr {
	if f.scheme == "unix" || f.scheme == "unix-abstract" {
		return []net.Addr{&net.UnixAddr{Net: "unix", Name: name}}
	}
	if path, ok := strings.CutPrefix(name, "unix:"); ok {
		if rest, ok := strings.CutPrefix(path, "//"); ok {
			path = rest
		}
		return []net.Addr{&net.UnixAddr{Net: "unix", Name: path}}
	}
	host, port, err := net.SplitHostPort(name)
	if err != nil {
		return nil
	}
	p, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil
	}
	if host == "" {
		host = "localhost"
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return []net.Addr{&net.TCPAddr{IP: ip.AsSlice(), Port: p, Zone: ip.Zone()}}
	}
	if l, ok := f.looked[name]; ok && time.Now().Before(l.until) {
		return l.addrs
	}
	var out []net.Addr
	ips, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // without an answer there is no door
	for _, ip := range ips {
		ip = ip.Unmap()
		out = append(out, &net.TCPAddr{IP: ip.AsSlice(), Port: p, Zone: ip.Zone()})
	}
	if f.looked == nil {
		f.looked = map[string]lookup{}
	}
	f.looked[name] = lookup{out, time.Now().Add(lookupFor)}
	return out
}

// discard is the handler of a connection that is of no use.
type discard struct{}

var _ transport.Handler = discard{}

func (discard) HandleFrame(_ wire.Header, b *wire.Buf) { b.Release() }
func (discard) HandleClose(error)                      {}
