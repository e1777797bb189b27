package demo

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

const (
	// goodWithin is how long people wait: a later answer is not a good one.
	goodWithin = time.Second
	// mostChaosChosen bounds the rate that is chosen for [Chaos], in requests/s: of
	// requests that hang for seconds, not too many shall be in flight.
	mostChaosChosen = 200
	// tellEach is how often the progress of a turn is told.
	tellEach = 5 * time.Second
)

// phase is a part of a turn of [Chaos], with a fault or without.
type phase struct {
	name    string
	what    string  // happens; empty: nothing
	share   float64 // of the turn
	program string  // that has the fault
	control string  // what its control file says; empty: it is killed, and started at the end of the phase
}

func (p phase) faulty() bool { return p.program != "" }

// script is what happens in each turn. A quiet phase follows each faulty one.
var script = []phase{
	{name: "quiet", share: 0.16},
	{"pricing slow", "each of its calls takes 200 ms more", 0.20, "pricing", "delay=200ms"},
	{name: "quiet again", share: 0.10},
	{"inventory failing", "30 % of its calls fail", 0.20, "inventory", "fail=0.3"},
	{name: "quiet again", share: 0.10},
	{"catalog dead", "killed, and started again at the end", 0.12, "catalog", ""},
	{name: "quiet at last", share: 0.12},
}

// turn is the script, played to one set of programs.
type turn struct {
	name    string // "without" or "with", and also of its folder
	policy  string // file; empty: none
	set     *set
	faults  string // folder of control files
	spans   []span // of the phases
	answers []answer
}

// span is when a phase was.
type span struct{ begun, ended time.Time }

// Chaos plays a script of faults to the shop over Stile, first without a policy, then
// with cfg.Policy: the same requests, the same faults at the same moments. All processes that it
// starts have ended when it returns. Failed requests are no error.
func Chaos(ctx context.Context, cfg Config) (r ChaosResult, err error) {
	err = within(ctx, cfg, func(ctx context.Context, d *demo) error {
		turns := [2]*turn{{name: "without"}, {name: "with", policy: cfg.Policy}}
		rate := cfg.Rate
		for _, t := range turns {
			if err := d.open(ctx, t); err != nil {
				return err
			}
			if rate == 0 {
				if rate, err = d.chooseChaosRate(ctx, t.set); err != nil {
					return err
				}
			}
			if err := d.play(ctx, t, rate); err != nil {
				return err
			}
			if err := t.set.stop(ctx); err != nil {
				return err
			}
		}
		r = chaosResult(rate, turns[0], turns[1])
		r.Policy = cfg.Policy
		return nil
	})
	return r, err
}

// open starts the programs of a turn.
func (d *demo) open(ctx context.Context, t *turn) error {
	d.screen.say("starting six services over Stile, %s the policy …", t.name)
	folder := filepath.Join(d.temp, t.name)
	t.faults = filepath.Join(folder, "faults")
	if err := os.MkdirAll(t.faults, 0o700); err != nil {
		return err
	}
	cfg := setConfig{
		bin: d.cfg.Shop, data: folder, network: d.cfg.Network, sockets: folder, stile: "on", dir: d.doors(),
		policy: t.policy, faults: t.faults, inFlight: mostInFlight,
	}
	var err error
	if t.set, err = d.startSet(ctx, cfg); err != nil {
		return err
	}
	if _, err := d.findWay(ctx, t.set); err != nil {
		return err
	}
	return d.warm(ctx, t.set)
}

func (d *demo) chooseChaosRate(ctx context.Context, s *set) (float64, error) {
	d.screen.say("looking for the most requests/s …")
	most, err := capacity(ctx, s.send, askers, d.cfg.Duration/20)
	if err != nil {
		return 0, err
	}
	rate := min(max(most*share, 1), mostChaosChosen)
	d.screen.say("the load: %.0f requests/s, %.0f %% of the %.0f that the services can answer here; %s", rate, 100*rate/most, most, Mix)
	return rate, nil
}

// play has the script happen while the load runs, and returns when all requests have been
// answered.
func (d *demo) play(ctx context.Context, t *turn, rate float64) (err error) {
	w := newWindow(t.set.send)
	w.each = func(a answer) { t.answers = append(t.answers, a) }
	l := &load{rate: rate, inFlight: mostInFlight, sleep: preciseSleep}
	l.enter(w)
	loadCtx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.run(loadCtx)
	}()
	defer func() {
		cancel()
		if err != nil { // nothing will be answered any more
			t.set.kill()
		}
		<-done
	}()
	for _, p := range script {
		length := time.Duration(p.share * float64(turnLength(d.cfg.Duration)))
		if err := d.act(ctx, t, w, p, length); err != nil {
			return err
		}
	}
	return nil
}

// turnLength is how long a turn is. The rest of the duration goes to finding a rate and
// warming up.
func turnLength(duration time.Duration) time.Duration { return duration * 45 / 100 }

// act plays one phase. What is due while its fault is put or lifted counts nowhere.
func (d *demo) act(ctx context.Context, t *turn, w *window, p phase, length time.Duration) error {
	text := p.name
	if p.faulty() {
		text += ": " + p.what
	}
	d.screen.say("%s the policy, %.1f s: %s", t.name, length.Seconds(), text)
	if err := t.begin(p); err != nil {
		return err
	}
	now := span{begun: time.Now()}
	if err := d.watch(ctx, t, w, now.begun.Add(length)); err != nil {
		return err
	}
	now.ended = time.Now()
	t.spans = append(t.spans, now)
	return t.end(ctx, p)
}

// begin has the fault of p begin.
func (t *turn) begin(p phase) error {
	switch {
	case !p.faulty():
		return nil
	case p.control == "":
		t.set.killProgram(p.program)
		return nil
	}
	return t.control(p.program, p.control)
}

// end ends the fault of p.
func (t *turn) end(ctx context.Context, p phase) error {
	switch {
	case !p.faulty():
		return nil
	case p.control == "":
		return t.set.restart(ctx, p.program)
	}
	return t.control(p.program, "")
}

// control writes the control file of a program, at once.
func (t *turn) control(program, text string) error {
	path := filepath.Join(t.faults, program)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// watch returns at end, having told every so often how the load goes.
func (d *demo) watch(ctx context.Context, t *turn, w *window, end time.Time) error {
	over := time.NewTimer(time.Until(end))
	defer over.Stop()
	tick := time.NewTicker(tellEach)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-over.C:
			return nil
		case <-tick.C:
			times := w.takeRecent()
			_, failed := w.counts()
			d.screen.say("  %s: p50 %s ms, p99 %s ms, %d failed", t.name,
				measure.Number(milliseconds(times.Quantile(0.5))), measure.Number(milliseconds(times.Quantile(0.99))), failed)
		}
	}
}
