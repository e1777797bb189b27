package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// A run of one cell with one peer has three processes: the driver starts a
// server and a client, and the client and the server talk over two pipes beside
// the peer's own connection:
//
//	server → client  {"network":…,"address":…}   once it listens
//	client → server  "begin\n" or "end\n"        around the measured window
//	server → client  a usage                     for each of them
//	client → server  end of file                 when the client is done
//
// The client writes its sample to standard output and exits.
const (
	roleEnv = "STILE_BENCH_ROLE" // "server" or "client"
	jobEnv  = "STILE_BENCH_JOB"  // a job as JSON

	// File descriptors of the pipes, in both roles.
	controlIn  = 3
	controlOut = 4
)

// job tells the two processes what to do.
type job struct {
	Peer    string        `json:"peer"`
	Cell    cell          `json:"cell"`
	Warmup  time.Duration `json:"warmup"`
	Window  time.Duration `json:"window"`
	Limit   time.Duration `json:"limit"`   // the client gives up after it
	Address string        `json:"address"` // where the server listens

	Profiles string `json:"profiles,omitempty"` // folder for CPU profiles of the window
}

// sample is what the client measured in one run.
type sample struct {
	Calls        uint64  `json:"calls"`
	P50          float64 `json:"p50"`      // µs
	P99          float64 `json:"p99"`      // µs
	CallsPerS    float64 `json:"calls_s"`  // 1/s
	CPU          float64 `json:"cpu"`      // µs per call, both processes
	Switches     float64 `json:"switches"` // per call, both processes
	Allocs       float64 `json:"allocs"`   // per call, client
	ServerAllocs float64 `json:"server_allocs"`
	RSS          float64 `json:"rss"`           // KiB, both processes
	ForeignCores float64 `json:"foreign_cores"` // CPU used by anything else
}

// playRole runs this process as server or client if its environment says so.
func playRole() (played bool, err error) {
	role := os.Getenv(roleEnv)
	if role == "" {
		return false, nil
	}
	var j job
	if err := json.Unmarshal([]byte(os.Getenv(jobEnv)), &j); err != nil {
		return true, fmt.Errorf("%s: %w", jobEnv, err)
	}
	list, err := peersNamed(j.Peer)
	if err != nil {
		return true, err
	}
	in, out := os.NewFile(controlIn, "control in"), os.NewFile(controlOut, "control out")
	if in == nil || out == nil {
		return true, errors.New("no control pipes")
	}
	// The peer process takes the end of these pipes for the end of this one, so
	// they must outlive the role, and the collector.
	defer func() {
		_ = in.Close()
		_ = out.Close()
	}()
	ctl := control{bufio.NewReader(in), out}
	switch role {
	case "server":
		err = runServer(list[0], j, ctl)
	case "client":
		var s *sample
		if s, err = runClient(list[0], j, ctl); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(s)
		}
	default:
		err = fmt.Errorf("%s is %q", roleEnv, role)
	}
	if err != nil {
		err = fmt.Errorf("%s %s: %w", j.Peer, role, err)
	}
	return true, err
}

// control is one end of the two pipes. Messages are lines.
type control struct {
	in  *bufio.Reader
	out io.Writer
}

func (c control) send(v any) error {
	line, err := json.Marshal(v)
	if err == nil {
		_, err = c.out.Write(append(line, '\n'))
	}
	return err
}

func (c control) receive(v any) error {
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return err
	}
	return json.Unmarshal(line, v)
}

// endpoint is a listener's address; it is a [net.Addr].
type endpoint struct {
	Net  string `json:"network"`
	Addr string `json:"address"`
}

func (e endpoint) Network() string { return e.Net }
func (e endpoint) String() string  { return e.Addr }

// runServer serves until the client closes its end of the pipes.
func runServer(p peer, j job, ctl control) error {
	listen := p.listen
	if listen == nil {
		listen = net.Listen
	}
	lis, err := listen(p.network, j.Address)
	if err != nil {
		return err
	}
	at := endpoint{lis.Addr().Network(), lis.Addr().String()}
	stop, err := p.serve(lis)
	if err != nil {
		return err
	}
	if err := ctl.send(at); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	prof := profile{}
	for {
		var border string
		if err := ctl.receive(&border); errors.Is(err, io.EOF) {
			return stop()
		} else if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		if border == "begin" {
			err = prof.start(j, "server")
		} else {
			err = prof.stop()
		}
		if err != nil {
			return err
		}
		u, err := readUsage(border == "end")
		if err != nil {
			return err
		}
		if err := ctl.send(u); err != nil {
			return fmt.Errorf("control: %w", err)
		}
	}
}

// runClient warms up, then calls for the window and measures both processes.
func runClient(p peer, j job, ctl control) (*sample, error) {
	giveUp := time.AfterFunc(j.Limit, func() {
		panic(fmt.Sprintf("%s client: not done after %s", p.name, j.Limit))
	})
	defer giveUp.Stop()
	var at endpoint
	if err := ctl.receive(&at); err != nil {
		return nil, fmt.Errorf("waiting for the server: %w", err)
	}
	c, err := dialSettled(func() (client, error) { return p.dial(at, j.Cell.Callers) })
	if err != nil {
		return nil, err
	}
	s, err := measure(c, j, ctl)
	if closed := c.close(); err == nil && closed != nil {
		err = fmt.Errorf("close: %w", closed)
	}
	return s, err
}

// settleLimit is how long a peer's calls may go another way at first: the server
// listens before it serves, and a client may meet it in between.
const settleLimit = 5 * time.Second

// dialSettled dials until calls go the way they should. Clients whose calls did
// not are given up, so that none is measured with what it opened for them.
func dialSettled(dial func() (client, error)) (client, error) {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		c, err := dial()
		if err != nil {
			return nil, err
		}
		if err = c.check(); err == nil {
			return c, nil
		}
		if err = errors.Join(err, c.close()); !errors.Is(err, errOtherWay) {
			return nil, err
		}
		if time.Since(start) > settleLimit {
			return nil, fmt.Errorf("still after %s: %w", settleLimit, err)
		}
	}
}

func measure(c client, j job, ctl control) (*sample, error) {
	l := newLoad(c, j.Cell.Kind, j.Cell.Size, j.Cell.Callers)
	if j.Warmup > 0 {
		if _, err := l.run(j.Warmup); err != nil {
			return nil, fmt.Errorf("warm-up: %w", err)
		}
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("after warm-up: %w", err)
	}
	busySince := time.Now()
	busy0, err := busyTime()
	if err != nil {
		return nil, err
	}
	server0, client0, err := readBoth(ctl, "begin")
	if err != nil {
		return nil, err
	}
	prof := profile{}
	if err := prof.start(j, "client"); err != nil {
		return nil, err
	}
	w, err := l.run(j.Window)
	if err = errors.Join(err, prof.stop()); err != nil {
		return nil, err
	}
	server1, client1, err := readBoth(ctl, "end")
	if err != nil {
		return nil, err
	}
	busy1, err := busyTime()
	if err != nil {
		return nil, err
	}
	busyFor := time.Since(busySince)
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("after the window: %w", err)
	}
	calls := float64(w.hist.count)
	cpu := server1.CPU - server0.CPU + client1.CPU - client0.CPU
	return &sample{
		Calls:        w.hist.count,
		P50:          w.hist.quantile(0.50) / 1e3,
		P99:          w.hist.quantile(0.99) / 1e3,
		CallsPerS:    calls / w.elapsed.Seconds(),
		CPU:          float64(cpu.Nanoseconds()) / 1e3 / calls,
		Switches:     float64(server1.Switches-server0.Switches+client1.Switches-client0.Switches) / calls,
		Allocs:       float64(client1.Mallocs-client0.Mallocs) / calls,
		ServerAllocs: float64(server1.Mallocs-server0.Mallocs) / calls,
		RSS:          float64(server1.RSS + client1.RSS),
		ForeignCores: max(0, (busy1-busy0-cpu).Seconds()/busyFor.Seconds()),
	}, nil
}

// readBoth samples the server and this process, the latter nearest to the window.
func readBoth(ctl control, border string) (server, own usage, err error) {
	readServer := func() error {
		if err := ctl.send(border); err != nil {
			return fmt.Errorf("control: %w", err)
		}
		if err := ctl.receive(&server); err != nil {
			return fmt.Errorf("control: %w", err)
		}
		return nil
	}
	readOwn := func() (err error) {
		own, err = readUsage(border == "end")
		return err
	}
	if border == "end" {
		err = errors.Join(readOwn(), readServer())
	} else {
		err = errors.Join(readServer(), readOwn())
	}
	return server, own, err
}
