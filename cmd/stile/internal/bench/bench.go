// Package bench measures what a call costs on this machine over each way that it
// can go, and says which one to use.
package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/stile-ipc/stile"
)

// Limits of what can be asked for.
const (
	// MaxSize leaves room for framing below the 4 MiB that gRPC receives by default.
	MaxSize    = 4<<20 - 1<<10
	MaxCallers = 4096
	// pace is how often the paced caller calls: seldom enough that both processes
	// sleep in between.
	pace = time.Millisecond
)

// Config says what to measure. Method, Data, Protoset and Header need a Target.
type Config struct {
	Target      string   // what a client dials; empty: echo servers of this program's own
	Method      string   // "package.Service/Method"; empty: the echo of stile bench serve
	Data        []byte   // its messages, as JSON
	Protoset    []byte   // a FileDescriptorSet; empty: ask the server
	Header      []string // metadata: key, value, key, value, …
	Environment string   // what in it turns Stile off; "": nothing
	Dir         string   // folder of the local doors, as for stile.WithDir
	UIDs        []int    // as for stile.WithAllowUIDs

	Sizes   []int // bytes of the echo, each way
	Callers []int // at once
	Rounds  int
	Window  time.Duration // measured, of each cell in each round
	Reply   time.Duration // limit of one call

	Self     []string  // this program and the arguments before a command
	Progress io.Writer // what happens is told here
	Live     bool      // Progress is a terminal: draw over the last line
}

// cell is one situation in which all ways are compared.
type cell struct {
	size    int // bytes; -1: the user's own message
	callers int
	pace    time.Duration // 0: without pause
}

// bench is a run.
type bench struct {
	cfg    Config
	ways   []*Way
	absent []Absent
	method string // for people
	stops  []func() error
}

// Run measures. All processes that it starts have ended when it returns.
func Run(ctx context.Context, cfg Config) (_ *Result, err error) {
	b := &bench{cfg: cfg}
	defer func() {
		b.endTick()
		err = errors.Join(err, b.stop())
	}()
	if cfg.Header != nil {
		ctx = metadata.AppendToOutgoingContext(ctx, cfg.Header...)
	}
	calls, err := b.open(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(b.ways, func(x, y *Way) int { return slices.Index(names, x.Name) - slices.Index(names, y.Name) })
	return b.measure(ctx, calls)
}

// callsFor returns the call of each cell.
type callsFor func(cell) call

// open makes the ways and finds out what to call.
func (b *bench) open(ctx context.Context) (callsFor, error) {
	if b.cfg.Target == "" {
		return b.openOwn(ctx)
	}
	plain, err := openGRPC("grpc", b.cfg.Target)
	if err != nil {
		return nil, err
	}
	b.ways = append(b.ways, plain)
	calls, err := b.calls(ctx, plain.conn)
	if err != nil {
		return nil, err
	}
	first := calls(b.cells()[0])
	if err := first.within(ctx, b.cfg.Reply, plain.conn); err != nil {
		return nil, fmt.Errorf("call %s at %s: %w", b.method, b.cfg.Target, err)
	}
	return calls, b.openLocals(ctx, b.cfg.Target, b.options(b.cfg.Dir), first)
}

// calls makes calls of the method at the server at conn.
func (b *bench) calls(ctx context.Context, conn grpc.ClientConnInterface) (callsFor, error) {
	if b.cfg.Method == "" {
		b.method = echoMethod[1:]
		return func(c cell) call { return echoCall(c.size) }, nil
	}
	limited, cancel := context.WithTimeout(ctx, b.cfg.Reply)
	defer cancel()
	m, err := describe(limited, conn, b.cfg.Method, b.cfg.Protoset)
	if err != nil {
		return nil, err
	}
	b.method = fmt.Sprintf("%s/%s", m.Parent().FullName(), m.Name())
	one, err := methodCall(m, b.cfg.Data)
	return func(cell) call { return one }, err
}

// openOwn starts the echo servers.
func (b *bench) openOwn(ctx context.Context) (callsFor, error) {
	b.method = echoMethod[1:]
	dir, err := os.MkdirTemp("", "stile-bench-")
	if err != nil {
		return nil, fmt.Errorf("no temporary folder (TMPDIR says where): %w", err)
	}
	b.stops = append(b.stops, func() error { return os.RemoveAll(dir) })
	doors := filepath.Join(dir, "doors")
	start := func(plain bool, addresses ...string) (*echoServer, error) {
		s, err := startEcho(ctx, b.cfg.Self, doors, addresses, plain)
		if err == nil {
			b.stops = append(b.stops, s.stop)
		}
		return s, err
	}
	plainAt, ownAt := []string{"127.0.0.1:0"}, []string{"127.0.0.1:0"}
	if runtime.GOOS != "windows" {
		plainAt = append(plainAt, "unix://"+filepath.Join(dir, "plain"))
		ownAt = []string{"unix://" + filepath.Join(dir, "stile")}
	}
	plain, err := start(true, plainAt...)
	if err != nil {
		return nil, err
	}
	for i, name := range []string{"grpc-tcp", "grpc-unix"}[:len(plainAt)] {
		w, err := openGRPC(name, plain.targets[i], os.Getpid(), plain.cmd.Process.Pid)
		if err != nil {
			return nil, err
		}
		b.ways = append(b.ways, w)
	}
	own, err := start(false, ownAt...)
	if err != nil {
		return nil, err
	}
	opts := b.options(doors)
	if err := awaitDoor(ctx, own.targets[0], opts); err != nil {
		return nil, err
	}
	return func(c cell) call { return echoCall(c.size) }, b.openLocals(ctx, own.targets[0], opts, echoCall(0))
}

// options are what a connection of Stile's has here.
func (b *bench) options(dir string) []grpc.DialOption {
	var opts []grpc.DialOption
	if dir != "" {
		opts = append(opts, stile.WithDir(dir))
	}
	if len(b.cfg.UIDs) > 0 {
		opts = append(opts, stile.WithAllowUIDs(b.cfg.UIDs...))
	}
	return opts
}

// openLocals adds Stile's ways to target, or says why there are none.
func (b *bench) openLocals(ctx context.Context, target string, opts []grpc.DialOption, probe call) error {
	for _, name := range []string{"unix", "shm"} {
		w, err := b.openLocal(ctx, name, target, opts, probe)
		switch {
		case errors.Is(err, errOtherWay):
			b.absent = append(b.absent, Absent{name, whyNot(ctx, name, target, opts)})
		case err != nil:
			return fmt.Errorf("call %s over %s: %w", b.method, fullName(name), err)
		default:
			b.ways = append(b.ways, w)
			if b.cfg.Target != "" { // the same server answers grpc-go
				b.ways[0].pids = w.pids
			}
		}
	}
	return nil
}

// cells lists what to measure, the easiest first.
func (b *bench) cells() []cell {
	if b.cfg.Method != "" {
		list := []cell{{size: -1, callers: 1, pace: pace}}
		for _, n := range b.cfg.Callers {
			list = append(list, cell{size: -1, callers: n})
		}
		return list
	}
	list := []cell{{size: b.cfg.Sizes[0], callers: 1, pace: pace}}
	for _, size := range b.cfg.Sizes {
		for _, n := range b.cfg.Callers {
			list = append(list, cell{size: size, callers: n})
		}
	}
	return list
}

// measure lets the ways take turns in every cell.
func (b *bench) measure(ctx context.Context, calls callsFor) (*Result, error) {
	cells := b.cells()
	samples := make([][][]sample, len(cells)) // by cell and way
	for i := range samples {
		samples[i] = make([][]sample, len(b.ways))
	}
	total := b.cfg.Rounds * len(cells) * len(b.ways)
	b.say("%s: %d windows of %v, about %v", b.method, total, b.cfg.Window,
		(time.Duration(total) * (b.cfg.Window + warmup(b.cfg.Window))).Round(time.Second))
	done := 0
	for round := range b.cfg.Rounds {
		if !b.cfg.Live {
			b.say("round %d of %d", round+1, b.cfg.Rounds)
		}
		for i, c := range cells {
			for turn := range b.ways {
				n := (turn + round + i) % len(b.ways) // nobody is always first
				w := b.ways[n]
				s, err := b.sample(ctx, w, c, calls(c))
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.Name, c, err)
				}
				samples[i][n] = append(samples[i][n], s)
				done++
				b.tick("%3d %%  %s, %s", 100*done/total, c, fullName(w.Name))
			}
		}
	}
	return b.result(cells, samples), nil
}

// warmup is how long calls go on before they are measured.
func warmup(window time.Duration) time.Duration { return window / 4 }

func (b *bench) sample(ctx context.Context, w *Way, c cell, call call) (s sample, err error) {
	l := load{conn: w.conn, call: call, callers: c.callers, pace: c.pace, pids: w.pids, reply: b.cfg.Reply}
	if _, err = l.run(ctx, warmup(b.cfg.Window)); err != nil {
		return s, err
	}
	runtime.GC() // of what another way left
	got, err := l.run(ctx, b.cfg.Window)
	if err != nil {
		return s, err
	}
	return sampleOf(got), nil
}

// say prints a line.
func (b *bench) say(format string, args ...any) { fmt.Fprintf(b.cfg.Progress, format+"\n", args...) }

// tick tells on a terminal how far it is, in one line drawn anew.
func (b *bench) tick(format string, args ...any) {
	if b.cfg.Live {
		fmt.Fprintf(b.cfg.Progress, "\r\x1b[K"+format, args...)
	}
}

// endTick takes the line away.
func (b *bench) endTick() { b.tick("") }

// stop closes all connections and ends all servers.
func (b *bench) stop() error {
	err := closeWays(b.ways)
	for i := len(b.stops) - 1; i >= 0; i-- {
		err = errors.Join(err, b.stops[i]())
	}
	return err
}
