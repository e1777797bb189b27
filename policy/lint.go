package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// Severity of what Lint finds.
type Severity string

// An error makes a policy unfit for use; a warning is for people to weigh.
const (
	SeverityError   Severity = "error"
	SeverityWarning Severity = "warning"
)

// Finding is what Lint found.
type Finding struct {
	Problem
	Severity Severity `json:"severity"`
}

// Lint says what is unwise in c, in the order of the file. methods, which may be nil,
// are those that the .proto files have: without them a name cannot be checked, and a
// method counts as idempotent only if the policy says so.
func Lint(c *Config, methods Methods) []Finding {
	l := &linter{config: c, methods: methods, services: methods.services()}
	for _, w := range c.Warnings {
		l.found = append(l.found, Finding{w, SeverityWarning})
	}
	for i := range c.MethodConfig {
		l.entry(i)
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int { return a.compare(b.Place) })
	return l.found
}

type linter struct {
	config   *Config
	methods  Methods
	services map[string]bool // of methods
	found    []Finding
}

// add reports a finding at path, or at what is around it if that is not written.
func (l *linter) add(s Severity, rule, path, format string, args ...any) {
	at, where := path, l.config.places[path]
	for where.Line == 0 && strings.Contains(at, ".") {
		at = at[:strings.LastIndex(at, ".")]
		where = l.config.places[at]
	}
	l.found = append(l.found, Finding{Problem{
		File: l.config.file, Place: where, Path: path, Text: fmt.Sprintf(format, args...), Rule: rule,
	}, s})
}

func entryPath(i int) string { return fmt.Sprintf("methodConfig[%d]", i) }

func (l *linter) entry(i int) {
	m := &l.config.MethodConfig[i]
	if len(m.Name) == 0 {
		return // warned of already
	}
	path := entryPath(i)
	l.names(m, path)
	l.time(m, path)
	l.repeats(m, i, path)
	l.answers(m, i, path)
}

// names checks that each name is of something that exists.
func (l *linter) names(m *MethodConfig, path string) {
	if l.methods == nil {
		return
	}
	for i, n := range m.Name {
		at := fmt.Sprintf("%s.name[%d]", path, i)
		key := n.key()
		switch {
		case key == "":
		case n.Method == "" && !l.services[key]:
			l.add(SeverityError, "unknown-name", at, "no service is named %s%s", n.Service, meant(n.Service, known(l.services)))
		case n.Method != "" && l.methods[key] == nil:
			l.add(SeverityError, "unknown-name", at, "no method is named %s%s", n, meant(n.String(), known(l.methods)))
		}
	}
}

// known returns the names that are keys of m, as people write them.
func known[V any](m map[string]V) []string {
	names := slices.Sorted(maps.Keys(m))
	for i, n := range names {
		names[i] = strings.Trim(n, "/")
	}
	return names
}

// time checks deadlines.
func (l *linter) time(m *MethodConfig, path string) {
	e := Effective{Config: *m, Timeout: m.Timeout}
	per := m.Stile.PerTryTimeout
	if m.Timeout == 0 {
		rule, what := "no-timeout", "has no timeout; the default, %s, is nobody's decision: say timeout"
		if m.WaitForReady {
			rule, what = "wait-without-deadline", "waits for a connection without a timeout of its own, so for %s: say timeout"
		}
		l.add(SeverityError, rule, path, what, l.config.Stile.DefaultTimeout)
		return
	}
	if per > m.Timeout {
		l.add(SeverityError, "attempts-do-not-fit", path+".x-stile.perTryTimeout", "is %s, longer than the timeout of the call, %s", per, m.Timeout)
		return
	}
	attempt := m.Timeout
	if per != 0 {
		attempt = per
	} else if r := m.RetryPolicy; r != nil && slices.Contains(r.RetryableStatusCodes, Code(codes.DeadlineExceeded)) {
		attempt /= Duration(e.Attempts()) // see route.split
	}
	if a := l.config.Stile.Admission; a != nil && a.MaxQueueDelay >= attempt {
		l.add(SeverityWarning, "queue-outlasts-attempts", "x-stile.admission.maxQueueDelay",
			"is %s, but an attempt of %s has %s: a server would work on what nobody waits for any more", a.MaxQueueDelay, m.Name[0], attempt)
	}
	if worst, ok := e.WorstTime(); ok && worst > m.Timeout {
		l.add(SeverityError, "attempts-do-not-fit", path+".timeout",
			"is %s, but %d attempts of %s with their backoffs take up to %s: fewer or shorter attempts, or a longer timeout", m.Timeout, e.Attempts(), per, worst)
	}
	if r := m.RetryPolicy; r != nil && r.InitialBackoff > r.MaxBackoff {
		l.add(SeverityWarning, "backoff-order", path+".retryPolicy.initialBackoff", "is %s, more than maxBackoff, %s, which holds", r.InitialBackoff, r.MaxBackoff)
	}
}

// repeats checks what makes a method run twice.
func (l *linter) repeats(m *MethodConfig, i int, path string) {
	e := Effective{Config: *m}
	hedge, at := e.Hedge(), path+".x-stile.hedge"
	if m.HedgingPolicy != nil {
		at = path + ".hedgingPolicy"
	}
	if m.RetryPolicy != nil {
		l.needs(m, i, Idempotent, "retry-not-idempotent", path+".retryPolicy", "retried")
	}
	if hedge == nil {
		return
	}
	l.needs(m, i, Idempotent, "hedge-not-idempotent", at, "hedged")
	_, budget := l.config.places["x-stile.retryBudget"]
	if l.config.RetryThrottling == nil && !budget {
		l.add(SeverityError, "hedge-without-budget", at, "has no budget in this file: say retryThrottling, or x-stile.retryBudget")
	}
	l.onlyUnary(m, i, at)
}

// answers checks what gives an answer without a call.
func (l *linter) answers(m *MethodConfig, i int, path string) {
	x := &m.Stile
	for _, use := range []struct {
		used       bool
		name, does string
	}{{x.Cache != nil, "cache", "cached"}, {x.Coalesce, "coalesce", "coalesced"}} {
		if !use.used {
			continue
		}
		at := path + ".x-stile." + use.name
		l.needs(m, i, NoSideEffects, use.name+"-with-side-effects", at, use.does)
		l.onlyUnary(m, i, at)
	}
	if x.Cache == nil {
		return
	}
	for j, f := range x.Cache.KeyFields {
		lack := l.those(m, i, func(e Effective) bool { return e.Known != nil && !e.Known.field(strings.Split(f, ".")) })
		if len(lack) > 0 {
			l.add(SeverityError, "unknown-field", fmt.Sprintf("%s.x-stile.cache.keyFields[%d]", path, j), "the request of %s has no field %s", lack[0], f)
		}
	}
	if x.Cache.StaleIfError > 0 && (x.Fallback == nil || !x.Fallback.Cache) {
		l.add(SeverityWarning, "stale-unused", path+".x-stile.cache.staleIfError", "has no effect without fallback: {cache: true}")
	}
}

// those lists the methods of entry i that is says yes to, in order. Where no methods are known, each
// name stands for its own.
func (l *linter) those(m *MethodConfig, i int, is func(Effective) bool) []string {
	var list []string
	for _, n := range m.Name {
		if l.methods == nil && is(l.config.Effective(n.key(), nil)) {
			list = append(list, n.String())
		}
		for name, known := range l.methods {
			e := l.config.Effective(name, known)
			if e.Entry == entryPath(i) && e.Matched == n && is(e) {
				list = append(list, strings.TrimPrefix(name, "/"))
			}
		}
	}
	slices.Sort(list)
	return list
}

// onlyUnary reports streams of entry i, for which what is at path cannot be.
func (l *linter) onlyUnary(m *MethodConfig, i int, path string) {
	streams := l.those(m, i, func(e Effective) bool { return e.Known != nil && e.Known.Streams })
	switch len(streams) {
	case 0:
	case 1:
		l.add(SeverityError, "stream-not-unary", path, "is for unary methods, and %s is a stream", streams[0])
	default:
		l.add(SeverityError, "stream-not-unary", path, "is for unary methods, and %s are streams", shortened(streams))
	}
}

// needs reports methods that are less idempotent than what is done with them needs.
func (l *linter) needs(m *MethodConfig, i int, level Idempotency, rule, path, does string) {
	wrong := l.those(m, i, func(e Effective) bool {
		return e.Idempotency != NoSideEffects && e.Idempotency != level
	})
	if len(wrong) == 0 {
		return
	}
	advice := "set idempotency_level in the .proto or x-stile.idempotency"
	if l.methods == nil {
		advice = "say x-stile.idempotency, or show lint the .proto files"
	}
	l.add(SeverityError, rule, path, "%[1]s %[2]s %[3]s, and %[2]s not marked %[4]s: %[5]s", shortened(wrong), isAre(wrong), does, level, advice)
}

func isAre(list []string) string {
	if len(list) == 1 {
		return "is"
	}
	return "are"
}

func shortened(list []string) string {
	const most = 3
	if len(list) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(list[:most], ", "), len(list)-most)
	}
	return strings.Join(list, ", ")
}
