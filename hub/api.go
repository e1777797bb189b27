package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/hub/web"
	"github.com/stile-ipc/stile/routemap"
)

// APIVersion is in the paths of the API, and changes when what they answer does.
const APIVersion = "v1"

// Map is what GET /api/v1/map answers.
type Map struct {
	*routemap.Report
	LeftOut map[string]uint64 `json:"leftOut"` // spans, by reason, since the hub was opened
	Windows int               `json:"windows"` // that were merged
	Damaged int               `json:"damaged"` // windows that could not be read, and are left out
}

// Status is what GET /api/v1/status answers.
type Status struct {
	Began   time.Time         `json:"began"`
	Addrs   map[string]string `json:"addrs"` // by what they are for
	Intake  Intake            `json:"intake"`
	Agents  Agents            `json:"agents"`
	Metrics Measured          `json:"metrics"`
	Forward *Forwarded        `json:"forward,omitempty"`
	Totals  Totals            `json:"totals"`
	Folded  map[string]uint64 `json:"folded"` // what was beyond what maps of windows tell apart, since the hub was opened, as maps have it
	Store   store.Usage       `json:"store"`
	Failing string            `json:"failing,omitempty"` // why windows are not kept now, and held in memory
	Untidy  string            `json:"untidy,omitempty"`  // why windows are not made longer, or taken away
	NATS    string            `json:"nats,omitempty"`    // why NATS servers elsewhere cannot be asked now
}

// Burns is what GET /api/v1/burn answers.
type Burns struct {
	Objective routemap.Objective `json:"objective"`
	Routes    []routemap.Burn    `json:"routes"`  // those with alerts first
	Damaged   int                `json:"damaged"` // windows of the longest time that could not be read, and are left out
}

// Windows is what GET /api/v1/windows answers.
type Windows struct {
	Windows []store.Window `json:"windows"`
}

func (h *Hub) api() http.Handler {
	mux := http.NewServeMux()
	prefix := "GET /api/" + APIVersion + "/"
	handle := func(path string, f func(*http.Request) (any, error)) {
		mux.Handle(prefix+path, h.access.guard(Read, asked(f)))
	}
	handle("status", h.status)
	handle("map", h.inTurn(h.mapOf))
	handle("brief", h.inTurn(h.brief))
	handle("windows", h.windows)
	handle("events", h.events)
	handle("load", h.inTurn(h.load))
	handle("records", h.inTurn(h.records))
	handle("queues", h.inTurn(h.queuesOf))
	mux.Handle(prefix+"queues/dead", h.access.operator(asked(h.deadLetters)))
	post := "POST /api/" + APIVersion + "/queues/"
	mux.Handle(post+"redrive", h.access.operator(h.acting(redrives)))
	mux.Handle(post+"discard", h.access.operator(h.acting(discards)))
	handle("processes", func(*http.Request) (any, error) { return Processes{h.agents.hosts.boot, h.agents.list()}, nil })
	handle("policies", h.inTurn(h.policies))
	handle("policies/version", h.inTurn(h.policyVersion))
	handle("policies/diff", h.inTurn(h.policyDiff))
	handle("series", h.inTurn(h.series))
	handle("traces", h.inTurn(h.traces))
	handle("trace", h.trace)
	handle("burn", h.inTurn(h.burn))
	handle("terms", func(*http.Request) (any, error) { return routemap.Terms(), nil })
	mux.Handle("GET /metrics", h.access.guard(Read, newMetrics(h).handler()))
	mux.HandleFunc("GET /healthz", h.healthz)
	mux.Handle("GET /", h.access.near(web.Handler())) // it asks for a token itself
	return mux
}

// healthz tells whether windows are kept. Anybody may ask: what an error says, which may have names of files in it, is for the status.
func (h *Hub) healthz(w http.ResponseWriter, _ *http.Request) {
	switch err := h.keeper.failing(); {
	case errors.Is(err, errStalled):
		http.Error(w, "windows cannot be kept: "+err.Error(), http.StatusServiceUnavailable)
	case err != nil:
		http.Error(w, "windows cannot be kept: there is an error, which the status tells", http.StatusServiceUnavailable)
	}
}

const (
	// maxAsking is how many maps are made at once: each has all its windows in memory.
	maxAsking   = 2
	askPatience = 30 * time.Second
)

// inTurn answers no more than maxAsking at once.
func (h *Hub) inTurn(f func(*http.Request) (any, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		if err := h.asking.take(r.Context()); err != nil {
			return nil, err
		}
		defer h.asking.give()
		return f(r)
	}
}

// badQuestion is an error of who asks; notThere, of who asks for what is not kept.
type (
	badQuestion struct{ error }
	notThere    struct{ error }
)

// asked answers with what f returns, as JSON.
func asked(f func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		code := http.StatusOK
		if err != nil {
			code = codeOf(err)
			v = map[string]string{"error": err.Error()}
		}
		var body []byte
		if e, is := v.(encoded); is {
			body, err = e.encode()
		} else {
			body, err = json.Marshal(v)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		write(w, typeJSON, code, append(body, '\n'))
	})
}

// codeOf is what an error is called over HTTP.
func codeOf(err error) int {
	switch {
	case errors.Is(err, errBusy):
		return http.StatusTooManyRequests
	case errors.As(err, new(badQuestion)):
		return http.StatusBadRequest
	case errors.As(err, new(notThere)):
		return http.StatusNotFound
	case errors.As(err, new(conflict)):
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// status waits for nothing: neither for what is drawn, nor for the disk.
func (h *Hub) status(*http.Request) (any, error) {
	u := h.keeper.usage.Load()
	if u.err != nil {
		return nil, u.err
	}
	s := Status{Began: h.began, Addrs: h.Addrs(), Intake: h.intake.status(), Agents: h.agents.status(), Metrics: h.agents.measured.status(), Forward: h.forward.status(), Store: u.Usage}
	s.Totals, s.Folded = h.totals.status()
	if err := h.keeper.failing(); err != nil {
		s.Failing = err.Error()
	}
	if err := h.keeper.untidy.now(); err != nil {
		s.Untidy = err.Error()
	}
	if err := h.nats.away.now(); err != nil {
		s.NATS = err.Error()
	}
	return s, nil
}

func (h *Hub) mapOf(r *http.Request) (any, error) {
	from, to, err := h.between(r)
	if err != nil {
		return nil, err
	}
	m, err := h.Map(r.Context(), from, to)
	return encoded{m}, err
}

// Map returns the map of a stretch of time, as far as it is kept.
func (h *Hub) Map(ctx context.Context, from, to time.Time) (Map, error) {
	m, chosen, damaged, err := h.store.Read(ctx, from, to)
	if err != nil {
		return Map{}, err
	}
	windows, bad, err := h.store.Queues(ctx, from, to)
	if err != nil {
		return Map{}, err
	}
	r := m.Report()
	r.AddQueues(inAll(windows))
	return Map{r, h.intake.status().LeftOut, len(chosen), damaged + bad}, nil
}

func (h *Hub) windows(r *http.Request) (any, error) {
	from, to, err := h.between(r)
	if err != nil {
		return nil, err
	}
	all, err := h.store.Windows(r.Context(), from, to)
	if all == nil {
		all = []store.Window{}
	}
	return Windows{all}, err
}

// burn reads target, a share, and slower, a duration.
func (h *Hub) burn(r *http.Request) (any, error) {
	q := r.URL.Query()
	if err := onlyKnown(q, "target", "slower"); err != nil {
		return nil, err
	}
	var o routemap.Objective
	var err error
	if o.Target, err = strconv.ParseFloat(q.Get("target"), 64); err != nil {
		return nil, badQuestion{fmt.Errorf("target: %q is no share, as 0.999 is", q.Get("target"))}
	}
	if text := q.Get("slower"); text != "" {
		if o.Slower, err = time.ParseDuration(text); err != nil {
			return nil, badQuestion{fmt.Errorf("slower: %q is no duration, as 200ms is", text)}
		}
	}
	if err := o.Check(); err != nil {
		return nil, badQuestion{err}
	}
	now := h.cfg.clock()
	reports, damaged := map[time.Duration]*routemap.Report{}, 0
	for _, back := range routemap.BurnTimes() {
		m, _, bad, err := h.store.Read(r.Context(), now.Add(-back), now)
		if err != nil {
			return nil, err
		}
		reports[back], damaged = m.Report(), max(damaged, bad)
	}
	return Burns{o, routemap.Burns(o, reports), damaged}, nil
}

// onlyKnown refuses a parameter that has none of the names.
func onlyKnown(q url.Values, names ...string) error {
	for name := range q {
		if !slices.Contains(names, name) {
			return badQuestion{fmt.Errorf("%q is not known: there are %s", name, strings.Join(names, " and "))}
		}
	}
	return nil
}

// DefaultBack is how far back a map goes if nothing else is asked for.
const DefaultBack = 15 * time.Minute

// between reads from and to: times, or durations before now. There may be others, as named.
func (h *Hub) between(r *http.Request, others ...string) (from, to time.Time, err error) {
	now := h.cfg.clock()
	q := r.URL.Query()
	if err := onlyKnown(q, append(others, "from", "to")...); err != nil {
		return from, to, err
	}
	if from, err = moment(q.Get("from"), now, now.Add(-DefaultBack)); err != nil {
		return from, to, badQuestion{fmt.Errorf("from: %w", err)}
	}
	if to, err = moment(q.Get("to"), now, now); err != nil {
		return from, to, badQuestion{fmt.Errorf("to: %w", err)}
	}
	if !from.Before(to) {
		return from, to, badQuestion{fmt.Errorf("from is %s, which is not before %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))}
	}
	return from, to, nil
}

func moment(text string, now, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	if d, err := time.ParseDuration(strings.TrimPrefix(text, "-")); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%q is neither a time, as 2006-01-02T15:04:05Z, nor how long ago, as 15m", text)
	}
	return t, nil
}
