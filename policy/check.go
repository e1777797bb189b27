package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// maxGRPCAttempts is what gRPC takes at most, whatever the file says (gRFC A6).
const maxGRPCAttempts = 5

var (
	serviceName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)
	fieldPath   = serviceName
)

// check finds the faults that lie between fields.
func (d *decoder) check(c *Config) {
	d.checkBalancing(c.LoadBalancingConfig.Value)
	if a := c.Stile.Admission; a != nil {
		d.checkFloor(a.MinRequests, a.MaxRequests, "x-stile.admission")
	}
	for i := range c.MethodConfig {
		m := &c.MethodConfig[i]
		path := entryPath(i)
		d.checkNames(c, m, i, path)
		d.checkAttempts(m, path)
		d.checkExtension(&m.Stile, join(path, extensionKey))
	}
}

func (d *decoder) at(path string) Place { return d.config.places[path] }

// broken tells whether something at or below path could not be read: what lies
// between its fields is then no fault of its own.
func (d *decoder) broken(path string) bool {
	return slices.ContainsFunc(d.faults, func(p Problem) bool {
		rest, ok := strings.CutPrefix(p.Path, path)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	})
}

// checkBalancing finds what grpc-go refuses whatever the policies are.
func (d *decoder) checkBalancing(value any) {
	const path = "loadBalancingConfig"
	list, ok := value.([]any)
	switch {
	case value == nil || d.broken(path):
	case !ok || len(list) == 0:
		d.faultf(d.at(path), path, "must be a list of policies, such as [{round_robin: {}}]")
	default:
		for i, item := range list {
			if m, ok := item.(map[string]any); !ok || len(m) != 1 {
				d.faultf(d.at(path), fmt.Sprintf("%s[%d]", path, i), "must be a mapping with one key, the policy's name, such as {round_robin: {}}")
			}
		}
	}
}

func (d *decoder) checkNames(c *Config, m *MethodConfig, index int, path string) {
	if len(m.Name) == 0 && !d.broken(path) {
		d.warnf(d.at(path), path, "has no name, so that it holds for nothing: write name: [{}] for all methods")
	}
	for i, n := range m.Name {
		at := fmt.Sprintf("%s.name[%d]", path, i)
		if d.broken(at) {
			continue
		}
		switch {
		case n.Service == "" && n.Method != "":
			d.faultf(d.at(at), at, "has a method but no service")
			continue
		case n.Service != "" && !serviceName.MatchString(n.Service):
			d.faultf(d.at(at+".service"), at+".service", "%q is not the full name of a service, such as shop.v1.Pricing", clipped(n.Service))
			continue
		case n.Method != "" && (!serviceName.MatchString(n.Method) || strings.Contains(n.Method, ".")):
			d.faultf(d.at(at+".method"), at+".method", "%q is not the name of a method, such as Quote", clipped(n.Method))
			continue
		}
		key := n.key()
		if first, twice := c.byName[key]; twice {
			other := d.at(entryPath(first.entry))
			d.faultf(d.at(at), at, "%s has an entry already, in line %d", n, other.Line)
			continue
		}
		c.byName[key] = nameAt{index, i}
	}
}

// key is the name as gRPC's parser writes it.
func (n Name) key() string {
	if n.Service == "" {
		return ""
	}
	return "/" + n.Service + "/" + n.Method
}

// String returns the name for people.
func (n Name) String() string {
	switch {
	case n.Service == "":
		return "{}"
	case n.Method == "":
		return n.Service
	}
	return n.Service + "/" + n.Method
}

func (d *decoder) checkAttempts(m *MethodConfig, path string) {
	retry, hedging := m.RetryPolicy, m.HedgingPolicy
	if retry != nil && hedging != nil {
		at := join(path, "hedgingPolicy")
		d.faultf(d.at(at), at, "and retryPolicy exclude each other in gRPC: use x-stile.hedge beside retryPolicy")
	}
	if hedging != nil && m.Stile.Hedge != nil {
		at := join(path, "x-stile.hedge")
		d.faultf(d.at(at), at, "and hedgingPolicy say the same: keep one")
	}
	if retry != nil {
		d.checkMostAttempts(retry.MaxAttempts, join(path, "retryPolicy.maxAttempts"))
		at := join(path, "retryPolicy.retryableStatusCodes")
		if _, written := d.config.places[at]; written && !d.broken(at) && len(retry.RetryableStatusCodes) == 0 {
			d.faultf(d.at(at), at, "is empty: name the codes to retry, such as UNAVAILABLE")
		}
		if slices.Contains(retry.RetryableStatusCodes, 0) && !d.broken(at) {
			d.warnf(d.at(at), at, "has OK, after which nothing is retried")
		}
	}
	if hedging != nil {
		d.checkMostAttempts(hedging.MaxAttempts, join(path, "hedgingPolicy.maxAttempts"))
		d.warnf(d.at(join(path, "hedgingPolicy")), join(path, "hedgingPolicy"), "is passed over by grpc-go; Stile heeds it")
	}
}

func (d *decoder) checkMostAttempts(n int, path string) {
	if n > maxGRPCAttempts {
		d.warnf(d.at(path), path, "is %d; gRPC makes %d at most", n, maxGRPCAttempts)
	}
}

func (d *decoder) checkFloor(floor, ceiling int, path string) {
	if floor > ceiling && !d.broken(path) {
		at := path + ".minRequests"
		d.faultf(d.at(at), at, "is %d, more than maxRequests, %d", floor, ceiling)
	}
}

func (d *decoder) checkExtension(x *MethodExtension, path string) {
	if l := x.Limit; l != nil {
		d.checkFloor(l.MinRequests, l.MaxRequests, path+".limit")
	}
	if x.Fallback != nil && x.Fallback.Cache && x.Cache == nil {
		at := path + ".fallback.cache"
		d.faultf(d.at(at), at, "needs a cache: say cache.ttl and cache.staleIfError too")
	}
	if x.Cache != nil && !d.broken(path+".cache.keyFields") {
		seen := map[string]bool{}
		for i, f := range x.Cache.KeyFields {
			at := fmt.Sprintf("%s.cache.keyFields[%d]", path, i)
			if !fieldPath.MatchString(f) {
				d.faultf(d.at(at), at, "%q is not a field, such as sku or item.id", clipped(f))
			} else if seen[f] {
				d.faultf(d.at(at), at, "%s is there twice", f)
			}
			seen[f] = true
		}
	}
	if t := x.Transport; t != nil && !d.broken(path+".transport") {
		at := path + ".transport"
		if len(t.Prefer) == 0 {
			d.faultf(d.at(at), at, "prefers nothing: name ways, such as prefer: [shm, unix, tcp]")
		}
		for i, name := range t.Prefer {
			if slices.Index(t.Prefer, name) < i {
				at := fmt.Sprintf("%s.prefer[%d]", at, i)
				d.faultf(d.at(at), at, "%s is there twice", name)
			}
		}
	}
}
