package demo

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Way is which way calls go in the set over Stile.
type Way struct {
	Services map[string]string `json:"services"`         // "shm", "unix" or "grpc", by program
	Reason   string            `json:"reason,omitempty"` // of the first that is not "shm"
}

// local reports whether all calls go through a local door.
func (w Way) local() bool {
	for _, way := range w.Services {
		if way == "grpc" {
			return false
		}
	}
	return true
}

// String is a line for people.
func (w Way) String() string {
	words := map[string]string{"shm": "shared memory", "unix": "Stile's unix sockets", "grpc": "grpc-go"}
	by := map[string][]string{}
	for _, name := range programs {
		if way, ok := w.Services[name]; ok {
			by[way] = append(by[way], name)
		}
	}
	var parts []string
	for _, way := range []string{"shm", "unix", "grpc"} {
		if len(by[way]) > 0 {
			parts = append(parts, fmt.Sprintf("%s: through %s", strings.Join(by[way], " "), words[way]))
		}
	}
	text := "calls over Stile to " + strings.Join(parts, "; to ")
	if w.Reason != "" {
		text += " (" + w.Reason + ")"
	}
	return text
}

// findWay asks which way the calls of a set go. A local door opens
// just after its program listens, so it asks again for a while.
func (d *demo) findWay(ctx context.Context, s *set) (Way, error) {
	if d.cfg.Way == nil {
		return Way{}, nil
	}
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for until := time.Now().Add(min(d.cfg.Duration/10, 2*time.Second)); ; {
		w, err := d.askWay(ctx, s)
		if err != nil {
			return w, err
		}
		if w.local() || time.Now().After(until) {
			d.screen.say("%s", w)
			return w, nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return w, context.Cause(ctx)
		}
	}
}

func (d *demo) askWay(ctx context.Context, s *set) (Way, error) {
	w := Way{Services: map[string]string{}}
	for _, name := range programs {
		if name == "gateway" {
			continue // it speaks HTTP
		}
		way, reason, err := d.cfg.Way(ctx, s.process(name).address, d.doors())
		if err != nil {
			return w, err
		}
		w.Services[name] = way
		if way != "shm" && w.Reason == "" {
			w.Reason = reason
		}
	}
	return w, nil
}
