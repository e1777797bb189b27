// Package demo shows what Stile does for a whole system: it runs the shop's six
// programs over plain grpc-go and over Stile under the same load, moves the load
// from one to the other while it runs, and compares what they cost.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

const (
	// mostInFlight bounds the requests in flight. What is due beyond it fails.
	mostInFlight = 1024
	// askers is how many ask at once when the most requests/s are sought.
	askers = 16
	// share is the load, as a part of the most that the set over grpc-go answers:
	// little enough that requests seldom queue for a core, on which the load's own
	// work and whatever else the machine does must also run.
	share = 0.35
	// mostChosen bounds the rate that is chosen, in requests/s: a demo need not find
	// the limits of a large machine.
	mostChosen = 1000
	// pairLength is about how long the load stays with both sets once.
	pairLength = 6 * time.Second
	// longestSocketPath is what the address of a unix socket holds, in bytes, on
	// the system that allows least.
	longestSocketPath = 103
)

// Config says what to run.
type Config struct {
	Shop     string        // folder with the six programs
	Duration time.Duration // of the load
	Rate     float64       // requests/s; 0 to find out what suits the machine
	Network  string        // "unix" or "tcp": how the programs listen
	Progress io.Writer     // what happens is told here
	Live     bool          // Progress is a terminal: redraw a table on it
	Policy   string        // of [Chaos]: the policy file

	// Way tells which way calls to target go when a server publishes in dir:
	// "shm", "unix" or "grpc", and why.
	Way func(ctx context.Context, target, dir string) (way, reason string, err error)

	// Queue tells what the queue in a folder holds for the mailer. Nil: a slow mailer is not shown.
	Queue func(ctx context.Context, dir string) (Depth, error)

	// Watch takes traces by OTLP at an endpoint until end is called, and may use a folder. Nil, or no Queue: nothing is traced.
	Watch func(ctx context.Context, dir string) (endpoint string, end func(context.Context) error, err error)
}

// demo is a run.
type demo struct {
	cfg    Config
	temp   string
	screen *screen
	fail   context.CancelCauseFunc
	sets   []*set // all that were started
	load   *load
	now    *stretch // where the load is
	plain  side
	stile  side
}

// side is what is known of one of the two ways to call.
type side struct {
	name      string
	set       *set
	stretches []*stretch
	most      []float64 // requests/s that the set answers when asked without pause
	latest    row
}

// stretch is a window of the load on one side, and what the programs used in it.
type stretch struct {
	*window
	side          *side
	measured      bool
	before, after measure.Usage
	usageErr      error
	shown         measure.Usage // at the last tick, or before
	shownAt       time.Time
}

// Run runs the demo. All processes that it starts have ended when it returns. The
// result tells of failed requests, which are no error.
func Run(ctx context.Context, cfg Config) (r Result, err error) {
	err = within(ctx, cfg, func(ctx context.Context, d *demo) error {
		d.plain.name, d.stile.name = "grpc-go", "Stile"
		r, err = d.run(ctx)
		return err
	})
	return r, err
}

// within has do run a demo in a temporary folder, and leaves neither that nor a process.
// The context that do gets ends also when a program does that should not.
func within(ctx context.Context, cfg Config, do func(context.Context, *demo) error) (err error) {
	if err := FindShop(cfg.Shop); err != nil {
		return err
	}
	if cfg.Shop, err = filepath.Abs(cfg.Shop); err != nil {
		return err
	}
	temp, err := os.MkdirTemp("", "stile-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	if n := len(temp + "/grpc-go/inventory"); cfg.Network == "unix" && n > longestSocketPath {
		return fmt.Errorf("the temporary folder's name is too long for unix sockets: set TMPDIR to a shorter one than %s, or use --network tcp", filepath.Dir(temp))
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	d := &demo{cfg: cfg, temp: temp, fail: fail, screen: &screen{w: cfg.Progress, live: cfg.Live}}
	defer d.killAll()
	return do(ctx, d)
}

func (d *demo) run(ctx context.Context) (Result, error) {
	if err := d.start(ctx, &d.plain, "off"); err != nil {
		return Result{}, err
	}
	rate, err := d.chooseRate(ctx)
	if err != nil {
		return Result{}, err
	}
	d.load = &load{rate: rate, inFlight: mostInFlight, sleep: preciseSleep}
	p := planFor(d.cfg.Duration)
	way, err := d.compare(ctx, p)
	if err != nil {
		return Result{}, err
	}
	if err := d.findMost(ctx, p); err != nil {
		return Result{}, err
	}
	if err := d.replace(ctx, p); err != nil {
		return Result{}, err
	}
	d.screen.say("stopping the services over Stile …")
	if err := d.stile.set.stop(ctx); err != nil {
		return Result{}, err
	}
	r := d.result(rate)
	r.Way = way
	if d.cfg.Queue != nil {
		r.Mail, err = d.compareMail(ctx, rate)
	}
	if err == nil && d.cfg.Queue != nil && d.cfg.Watch != nil {
		err = d.trace(ctx, rate)
	}
	return r, err
}

// plan is how long each part of the load takes.
type plan struct {
	lead  time.Duration // before the second set is started
	pairs int           // windows on each side
	warm  time.Duration // at the beginning of a window, not measured
	main  time.Duration // the measured rest of it
	burst time.Duration // a search for the most requests/s, twice a side
	tail  time.Duration // before and after the first set is stopped
}

func planFor(d time.Duration) plan {
	pairs := min(max(int(d/pairLength), 1), 20)
	window := d * 7 / 10 / time.Duration(2*pairs)
	return plan{lead: d / 20, pairs: pairs, warm: window / 5, main: window * 4 / 5, burst: d / 20, tail: d / 40}
}

// start starts a set and has it answer some requests, so that nothing happens for
// the first time when it counts.
func (d *demo) start(ctx context.Context, s *side, stile string) error {
	d.screen.say("starting six services over %s …", s.name)
	sockets := filepath.Join(d.temp, s.name)
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return err
	}
	set, err := d.startSet(ctx, setConfig{
		bin: d.cfg.Shop, data: d.temp, network: d.cfg.Network, sockets: sockets,
		stile: stile, dir: d.doors(), inFlight: mostInFlight,
	})
	if err != nil {
		return err
	}
	s.set = set
	return d.warm(ctx, set)
}

// startSet starts a set that ends with the demo.
func (d *demo) startSet(ctx context.Context, cfg setConfig) (*set, error) {
	s, err := startSet(ctx, cfg, d.fail)
	if err == nil {
		d.sets = append(d.sets, s)
	}
	return s, err
}

// warm has a set answer some requests.
func (d *demo) warm(ctx context.Context, s *set) error {
	_, err := capacity(ctx, s.send, 2, min(d.cfg.Duration/40, time.Second))
	return err
}

// doors is the folder where the services publish their local doors.
func (d *demo) doors() string { return filepath.Join(d.temp, "doors") }

func (d *demo) chooseRate(ctx context.Context) (float64, error) {
	if d.cfg.Rate > 0 {
		return d.cfg.Rate, nil
	}
	d.screen.say("looking for the most requests/s over grpc-go …")
	most, err := capacity(ctx, d.plain.set.send, askers, d.cfg.Duration/20)
	if err != nil {
		return 0, err
	}
	rate := min(max(most*share, 1), mostChosen)
	d.screen.say("the load: %.0f requests/s, %.0f %% of the %.0f that the services over grpc-go can answer here; %s", rate, 100*rate/most, most, Mix)
	return rate, nil
}

// compare moves the load to and fro between the sets and measures both.
func (d *demo) compare(ctx context.Context, p plan) (way Way, err error) {
	stop := d.startLoad(&d.plain)
	defer stop()
	if err := d.wait(ctx, p.lead); err != nil {
		return way, err
	}
	if err := d.start(ctx, &d.stile, "on"); err != nil {
		return way, err
	}
	if way, err = d.findWay(ctx, d.stile.set); err != nil {
		return way, err
	}
	for n := range 2 * p.pairs {
		s := &d.stile
		if n%2 == 1 {
			s = &d.plain
		}
		d.screen.say("load on %s, window %d of %d", s.name, n+1, 2*p.pairs)
		d.move(s, false)
		if err := d.wait(ctx, p.warm); err != nil {
			return way, err
		}
		d.move(s, true)
		if err := d.wait(ctx, p.main); err != nil {
			return way, err
		}
	}
	return way, nil
}

// findMost has each set answer as much as it can, in turns.
func (d *demo) findMost(ctx context.Context, p plan) error {
	d.screen.say("looking for the most requests/s over both …")
	for _, s := range []*side{&d.plain, &d.stile, &d.plain, &d.stile} {
		most, err := capacity(ctx, s.set.send, askers, p.burst)
		if err != nil {
			return err
		}
		s.most = append(s.most, most)
	}
	return nil
}

// replace puts the load on the set over grpc-go, moves it to the one over Stile
// and stops the first, as an operator would.
func (d *demo) replace(ctx context.Context, p plan) error {
	stop := d.startLoad(&d.plain)
	defer stop()
	if err := d.wait(ctx, p.tail); err != nil {
		return err
	}
	d.screen.say("moving the load to Stile for good, stopping the services over grpc-go …")
	d.move(&d.stile, false)
	for _, s := range d.plain.stretches {
		select {
		case <-s.idle:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if err := d.plain.set.stop(ctx); err != nil {
		return err
	}
	return d.wait(ctx, p.tail)
}

// startLoad runs the load, at first on s, until the returned function is called;
// that returns when all requests have been answered.
func (d *demo) startLoad(s *side) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	d.move(s, false)
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.load.run(ctx)
	}()
	return func() {
		d.endStretch()
		cancel()
		<-done
	}
}

// move has the load go to s from now on.
func (d *demo) move(s *side, measured bool) {
	d.endStretch()
	next := &stretch{window: newWindow(s.set.send), side: s, measured: measured}
	next.before, next.usageErr = measure.UsageOf(s.set.pids())
	next.shown, next.shownAt = next.before, time.Now()
	d.load.enter(next.window)
	s.stretches = append(s.stretches, next)
	d.now = next
}

func (d *demo) endStretch() {
	if d.now == nil {
		return
	}
	after, err := measure.UsageOf(d.now.side.set.pids())
	d.now.after, d.now.usageErr = after, errors.Join(d.now.usageErr, err)
	d.now = nil
}

// wait returns after length, having shown every so often how the load goes.
func (d *demo) wait(ctx context.Context, length time.Duration) error {
	end := time.NewTimer(length)
	defer end.Stop()
	for {
		tick := time.NewTimer(d.screen.untilTick())
		select {
		case <-ctx.Done():
			tick.Stop()
			return context.Cause(ctx)
		case <-end.C:
			tick.Stop()
			return nil
		case <-tick.C:
			d.show()
		}
	}
}

// show tells how the load has gone since the last time, if there is enough of it
// to tell.
func (d *demo) show() {
	s := d.now
	now := time.Now()
	if now.Sub(s.shownAt) < d.screen.interval()/3 {
		d.screen.tick(s.side.name, d.plain.latest, d.stile.latest)
		return
	}
	times := s.takeRecent()
	row := row{
		name: s.side.name, rps: float64(times.Count) / now.Sub(s.shownAt).Seconds(),
		p50: times.Quantile(0.5), p99: times.Quantile(0.99),
	}
	for _, all := range s.side.stretches {
		_, failed := all.counts()
		row.failed += failed
	}
	if used, err := measure.UsageOf(s.side.set.pids()); err == nil && s.usageErr == nil {
		row.perRequest(used.Since(s.shown), times.Count)
		s.shown = used
	}
	s.shownAt = now
	if times.Count > 0 || row.failed > 0 {
		s.side.latest = row
	}
	d.screen.tick(s.side.name, d.plain.latest, d.stile.latest)
}

func (d *demo) killAll() {
	d.screen.close()
	for _, s := range d.sets {
		s.kill()
	}
}

// DefaultNetwork is how the programs listen if nothing else is asked for: over
// unix sockets, which are grpc-go's fastest way on one machine, where there are
// any.
func DefaultNetwork() string {
	if runtime.GOOS == "windows" {
		return "tcp"
	}
	return "unix"
}
