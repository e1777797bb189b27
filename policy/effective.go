package policy

import "math"

// Effective is what holds for one method.
type Effective struct {
	Method string  // /service/method
	Known  *Method // what the .proto says of it; nil: nothing
	// Entry is the path of the methodConfig that holds, such as methodConfig[0];
	// empty: none.
	Entry string
	// Matched is the name in Entry that matched.
	Matched Name
	// Config is that entry; its zero value if there is none.
	Config MethodConfig
	// Timeout is the entry's, or the file's default. The caller's holds if it is shorter.
	Timeout Duration
	// Idempotency is the entry's, or what the .proto says.
	Idempotency Idempotency
}

// Effective returns what holds for method, "/service/method". known, which may be
// nil, is what its .proto says.
func (c *Config) Effective(method string, known *Method) Effective {
	e := Effective{Method: method, Known: known, Timeout: c.Stile.DefaultTimeout}
	if known != nil {
		e.Idempotency = known.Idempotency
	}
	for _, key := range []string{method, serviceOf(method), ""} {
		at, ok := c.byName[key]
		if !ok {
			continue
		}
		e.Config = c.MethodConfig[at.entry]
		e.Entry = entryPath(at.entry)
		e.Matched = e.Config.Name[at.name]
		if e.Config.Timeout != 0 {
			e.Timeout = e.Config.Timeout
		}
		if _, written := c.places[e.Entry+".x-stile.idempotency"]; written {
			e.Idempotency = e.Config.Stile.Idempotency
		}
		break
	}
	return e
}

// Hedge returns how the method is hedged, by x-stile or by gRPC's hedgingPolicy, or nil.
func (e *Effective) Hedge() *Hedge {
	if h := e.Config.HedgingPolicy; h != nil {
		return &Hedge{HedgingDelay: Delay{Fixed: h.HedgingDelay}, MaxAttempts: min(h.MaxAttempts, maxGRPCAttempts)}
	}
	return e.Config.Stile.Hedge
}

// Attempts is how often the method is called at most for one call: retries and hedges
// share the larger maxAttempts.
func (e *Effective) Attempts() int {
	n := 1
	if r := e.Config.RetryPolicy; r != nil {
		n = min(r.MaxAttempts, maxGRPCAttempts)
	}
	if h := e.Hedge(); h != nil {
		n = max(n, min(h.MaxAttempts, maxGRPCAttempts))
	}
	return n
}

// WorstTime is how long all attempts take, one after the other, if each takes
// perTryTimeout and every backoff is the longest, without regard to the timeout. It is
// false where attempts have no timeout of their own, for the first may then take all, and
// where the hedging delay follows what is observed.
func (e *Effective) WorstTime() (Duration, bool) {
	per := e.Config.Stile.PerTryTimeout
	if per == 0 {
		return 0, false
	}
	n, total := e.Attempts(), float64(per)
	if r := e.Config.RetryPolicy; r != nil {
		total *= float64(n)
		for i := range n - 1 {
			total += math.Min(float64(r.InitialBackoff)*math.Pow(r.BackoffMultiplier, float64(i)), float64(r.MaxBackoff))
		}
	} else if h := e.Hedge(); h != nil { // they overlap
		if h.HedgingDelay.Percentile != 0 {
			return 0, false
		}
		total += float64(n-1) * float64(h.HedgingDelay.Fixed)
	}
	return Duration(math.Min(total, math.MaxInt64/2)), true
}
