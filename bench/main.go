// Command bench compares Stile with other ways of calling a Go process on the
// same host. It runs each peer as two processes, server and client, and measures
// both. It needs Linux.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	played, err := playRole()
	if !played {
		err = run(os.Args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	plan
	json string
}

func optionsOf(args []string) (o options, err error) {
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	names := f.String("peers", "", "peers, comma-separated (default all: "+peerNames(peers())+")")
	kindNames := f.String("kinds", "unary,stream,bidi,paced", "kinds of call: unary, stream, bidi, paced; paced is one 64 B call every ms")
	sizes := f.String("sizes", "64,1024,65536", "payloads in bytes")
	callers := f.String("callers", "1,64", "numbers of concurrent callers")
	f.IntVar(&o.rounds, "rounds", 3, "rounds")
	seconds := f.Float64("seconds", 1, "measured seconds of each run")
	warmup := f.Float64("warmup", 0.3, "seconds of calls before each measured window")
	f.StringVar(&o.profiles, "profiles", "", "existing folder for CPU profiles of both processes of each run; empty for none")
	f.StringVar(&o.json, "json", "results/latest.json", "file for the rows; empty for none")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.rounds < 1 || *seconds <= 0 || *warmup < 0 {
		return o, fmt.Errorf("nothing to measure in %d rounds of %g s after %g s", o.rounds, *seconds, *warmup)
	}
	o.window = time.Duration(*seconds * float64(time.Second))
	o.warmup = time.Duration(*warmup * float64(time.Second))
	if o.peers, err = peersNamed(*names); err != nil {
		return o, err
	}
	sizeList, err := intsOf(*sizes)
	if err != nil {
		return o, err
	}
	callerList, err := intsOf(*callers)
	if err != nil {
		return o, err
	}
	o.cells, err = cellsOf(strings.Split(*kindNames, ","), sizeList, callerList)
	return o, err
}

// run is the driver: it measures, prints the table and writes the file.
func run(args []string) (err error) {
	o, err := optionsOf(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := thisMachine()
	if err != nil {
		return err
	}
	d, err := newDriver(os.Stderr)
	if err != nil {
		return err
	}
	defer func() {
		if closed := d.close(); err == nil {
			err = closed
		}
	}()
	rows, err := d.runPlan(ctx, o.plan, os.Stderr)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if err := m.finish(rows); err != nil {
		return err
	}
	r := report{m, rows}
	if err := writeTable(os.Stdout, r); err != nil {
		return err
	}
	if o.json == "" {
		return nil
	}
	return r.writeFile(o.json)
}
