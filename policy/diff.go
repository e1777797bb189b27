package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Change is one difference in what happens.
type Change struct {
	Name   string `json:"name"` // a method, a service, {} for all others, or empty: the whole file
	What   string `json:"what"` // such as worst-case attempts
	Before string `json:"before"`
	After  string `json:"after"`
	Note   string `json:"note,omitempty"` // what is alarming about After
}

// String returns the change as a line without its name.
func (c Change) String() string {
	s := fmt.Sprintf("%s %s → %s", c.What, c.Before, c.After)
	if c.Note != "" {
		s += " " + c.Note
	}
	return s
}

// Diff says what b would change for calls that follow a. methods, which may be nil, are those that
// the .proto files have; else each name in one of the files stands for its methods.
func Diff(a, b *Config, methods Methods) []Change {
	var changes []Change
	compare := func(name string, before, after []trait) {
		for i := range before {
			if before[i].value != after[i].value {
				changes = append(changes, Change{name, before[i].what, before[i].value, after[i].value, after[i].note})
			}
		}
	}
	compare("", a.traits(), b.traits())
	keys := map[string]bool{"": true}
	for _, c := range []*Config{a, b} {
		for key := range c.byName {
			keys[key] = true
		}
	}
	for name := range methods {
		keys[name] = true
	}
	services := methods.services()
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(x, y string) int {
		return cmp.Or(cmp.Compare(min(len(x), 1), min(len(y), 1)), cmp.Compare(x, y))
	}) {
		if methods[key] == nil && services[serviceOf(key)] {
			continue // its methods are there
		}
		before, after := a.Effective(key, methods[key]), b.Effective(key, methods[key])
		name := strings.Trim(key, "/")
		compare(cmp.Or(name, "{}"), before.traits(), after.traits())
	}
	return changes
}

// trait is one side of what happens, in words.
type trait struct{ what, value, note string }

func (c *Config) traits() []trait {
	throttling := "never"
	if t := c.RetryThrottling; t != nil {
		throttling = fmt.Sprintf("below %v of %v tokens, %v back a success", t.MaxTokens/2, t.MaxTokens, t.TokenRatio)
	}
	budget, takes, waits := c.Stile.RetryBudget, "all calls at once", "nothing"
	if a := c.Stile.Admission; a != nil {
		takes = fmt.Sprint(a.MaxRequests)
		if a.Adaptive {
			takes = fmt.Sprintf("%d to %d, adaptive", a.MinRequests, a.MaxRequests)
		}
		waits = fmt.Sprintf("%d calls, %s at most", a.MaxPendingRequests, a.MaxQueueDelay)
	}
	return []trait{
		{"retries stop", throttling, ""},
		{"retries and hedges add at most", fmt.Sprintf("%v %%, and %d at once", budget.BudgetPercent, budget.MinRetryConcurrency), ""},
		{"a server takes at once", takes, ""},
		{"at a server waits", waits, ""},
		{"load balancing", c.balancing(), ""},
		{"health checks", c.health(), ""},
	}
}

// balancing is the list of policies as JSON. One that is only named has no settings.
func (c *Config) balancing() string {
	list := c.LoadBalancingConfig.Value
	if list == nil {
		list = []any{map[string]any{cmp.Or(c.LoadBalancingPolicy, "pick_first"): map[string]any{}}}
	}
	out, err := json.Marshal(list)
	if err != nil {
		panic(err) // decoder.raw has let nothing in that JSON cannot say
	}
	return string(out)
}

func (c *Config) health() string {
	if c.HealthCheckConfig == nil {
		return "none"
	}
	return fmt.Sprintf("%q", c.HealthCheckConfig.ServiceName)
}

func (e *Effective) traits() []trait {
	m, x := &e.Config, &e.Config.Stile
	timeout := e.Timeout.String()
	if m.Timeout == 0 {
		timeout += ", by default"
	}
	worst := trait{"worst-case time", e.Timeout.String(), ""}
	if t, ok := e.WorstTime(); ok {
		worst.value = t.String()
		if t > e.Timeout {
			worst.note = "> timeout " + e.Timeout.String()
		}
	}
	perTry, enforced := "none", "enforced"
	if x.PerTryTimeout != 0 {
		perTry = x.PerTryTimeout.String()
	}
	if x.Shadow {
		enforced = "only told"
	}
	return append([]trait{
		{"timeout", timeout, ""},
		{"worst-case attempts", fmt.Sprint(e.Attempts()), ""},
		worst,
		{"one attempt", perTry, ""},
		{"retried after", e.retried(), ""},
		{"backoff", e.backoff(), ""},
		{"hedged after", e.hedged(), ""},
		{"hedges go on after", e.nonFatal(), ""},
		{"waits for a connection", fmt.Sprint(m.WaitForReady), ""},
		{"largest request", bytesOr(m.MaxRequestMessageBytes), ""},
		{"largest response", bytesOr(m.MaxResponseMessageBytes), ""},
		{"idempotency", e.Idempotency.String(), ""},
		{"criticality", x.Criticality.String(), ""},
		{"rules are", enforced, ""},
	}, x.traits()...)
}

func (x *MethodExtension) traits() []trait {
	opens, slow, waits, limit, pending := "never", "never", "never", "no limit", "none"
	if b := x.Breaker; b != nil {
		window := fmt.Sprintf("%d calls", b.SlidingWindowSize)
		if b.SlidingWindowType == TimeBased {
			window = fmt.Sprintf("%d s", b.SlidingWindowSize)
		}
		opens = fmt.Sprintf("%v %% of %s failed, after %d", b.FailureRateThreshold, window, b.MinimumNumberOfCalls)
		slow = fmt.Sprintf("%v %% slower than %s", b.SlowCallRateThreshold, b.SlowCallDurationThreshold)
		waits = fmt.Sprintf("%s, then %d calls", b.WaitDurationInOpenState, b.PermittedNumberOfCallsInHalfOpenState)
	}
	if l := x.Limit; l != nil {
		limit, pending = fmt.Sprint(l.MaxRequests), fmt.Sprint(l.MaxPendingRequests)
		if l.Adaptive {
			limit = fmt.Sprintf("%d to %d, adaptive", l.MinRequests, l.MaxRequests)
		}
	}
	kept, key, stale, fails := "no", "none", "no", "the error"
	if c := x.Cache; c != nil {
		kept, key = fmt.Sprintf("%s, %s at most", c.TTL, c.MaxBytes), "the whole request"
		if len(c.KeyFields) > 0 {
			key = strings.Join(slices.Sorted(slices.Values(c.KeyFields)), ", ")
		}
		if x.Fallback != nil && x.Fallback.Cache {
			stale, fails = c.StaleIfError.String(), "the last answer"
		}
	}
	slo, ways := "nothing", "all"
	if s := x.SLO; s != nil {
		slo = fmt.Sprintf("%v %% within %s, %v of all may miss", s.Percentile, s.Latency, s.ErrorBudget)
	}
	if t := x.Transport; t != nil {
		names := make([]string, len(t.Prefer))
		for i, n := range t.Prefer {
			names[i] = n.String()
		}
		ways = strings.Join(names, ", ")
	}
	return []trait{
		{"breaker opens at", opens, ""},
		{"breaker opens when", slow, ""},
		{"breaker stays open", waits, ""},
		{"calls at once", limit, ""},
		{"calls waiting", pending, ""},
		{"answers are kept", kept, ""},
		{"answers are told apart by", key, ""},
		{"stale answers for", stale, ""},
		{"a failed call gives", fails, ""},
		{"equal calls share an answer", fmt.Sprint(x.Coalesce), ""},
		{"ways", ways, ""},
		{"promises", slo, ""},
	}
}

func bytesOr(n *int64) string {
	if n == nil {
		return "gRPC's default"
	}
	return Size(*n).String()
}

func (e *Effective) retried() string {
	r := e.Config.RetryPolicy
	if r == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s, %d attempts", codeList(r.RetryableStatusCodes), min(r.MaxAttempts, maxGRPCAttempts))
}

func (e *Effective) nonFatal() string {
	var codes []Code
	switch m := &e.Config; {
	case e.Hedge() == nil:
	case m.HedgingPolicy != nil:
		codes = m.HedgingPolicy.NonFatalStatusCodes
	case m.RetryPolicy != nil:
		codes = m.RetryPolicy.RetryableStatusCodes
	default:
		codes = outages()
	}
	return cmp.Or(codeList(codes), "nothing")
}

// codeList names each code once, in the order of the alphabet.
func codeList(codes []Code) string {
	names := make([]string, len(codes))
	for i, c := range codes {
		names[i] = c.String()
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}

func (e *Effective) backoff() string {
	r := e.Config.RetryPolicy
	if r == nil {
		return "none"
	}
	return fmt.Sprintf("%s to %s, ×%v", r.InitialBackoff, r.MaxBackoff, r.BackoffMultiplier)
}

func (e *Effective) hedged() string {
	h := e.Hedge()
	if h == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s, %d attempts", h.HedgingDelay, h.MaxAttempts)
}
