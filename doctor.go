package stile

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc"

	"github.com/stile-ipc/stile/transport/local"
)

// Diagnosis tells which way calls to a target would go, and why. Its strings are
// for people.
type Diagnosis struct {
	Target string         `json:"target"`
	Way    string         `json:"way"`    // "shm", "unix" or "grpc"
	Reason string         `json:"reason"` // one sentence
	Steps  []DiagnoseStep `json:"steps"`  // in the order they were looked at
}

// DiagnoseStep is one thing that was looked at.
type DiagnoseStep struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// Diagnose finds out which way calls from this process to target would go, made
// by a connection with these options. It resolves the target and shakes hands at
// the local door, if there is one, but makes no call and opens no HTTP/2
// connection. The error is grpc.NewClient's. ctx bounds the whole.
func Diagnose(ctx context.Context, target string, opts ...grpc.DialOption) (Diagnosis, error) {
	out := Diagnosis{Target: target, Way: "grpc"}
	plain, own, explicit, onlyTwins := splitDialOptions(opts)
	cc, err := grpc.NewClient(target, plain...)
	if err != nil {
		return out, fmt.Errorf("stile: diagnose %s: %w", target, err)
	}
	defer cc.Close()
	if off() {
		out.no("environment", "STILE=off turns local calls off")
		return out, nil
	}
	out.yes("environment", "STILE is not off")
	e := &entrance{cc: cc, d: &dialer{own: own}}
	e.set = settleClient(cc, readClient(cc), explicit, own, onlyTwins)
	if len(e.set.shut) > 0 {
		out.no("options", strings.Join(e.set.shut, "; "))
		return out, nil
	}
	out.yes("options", "every dial option can be honoured locally")
	f := newFinder(e)
	defer f.close()
	places, reason := f.places(ctx)
	switch {
	case len(places) == 0 && ctx.Err() != nil:
		out.no("resolve", "the target was not resolved in time")
		return out, nil
	case reason != "":
		out.no("resolve", reason)
		return out, nil
	case len(places) == 0:
		out.no("resolve", "the target resolved to no address"+f.complaint())
		return out, nil
	}
	out.yes("resolve", fmt.Sprintf("%s resolves to %s", cc.Target(), joinPlaces(places)))
	for _, p := range places {
		if out.probe(ctx, p.addr, e.dialConfig()) {
			break
		}
	}
	return out, nil
}

func joinPlaces(places []place) string {
	names := make([]string, len(places))
	for i, p := range places {
		names[i] = p.addr.String()
	}
	return strings.Join(names, ", ")
}

func (d *Diagnosis) yes(name, detail string) {
	d.Steps = append(d.Steps, DiagnoseStep{name, true, detail})
}

func (d *Diagnosis) no(name, detail string) {
	d.Steps = append(d.Steps, DiagnoseStep{name, false, detail})
	d.Reason = detail
}

// probe knocks at one address and reports whether calls would go that way.
func (d *Diagnosis) probe(ctx context.Context, a net.Addr, cfg local.DialConfig) bool {
	key, err := local.KeyOf(a)
	if err != nil {
		d.no("rendezvous", fmt.Sprintf("%s: %v", a, err))
		return false
	}
	d.yes("rendezvous", fmt.Sprintf("%s is looked for as %s", a, key))
	r, err := local.Probe(ctx, key, cfg)
	for _, s := range r.Steps {
		d.Steps = append(d.Steps, DiagnoseStep{s.Name, s.OK, s.Detail})
	}
	if err != nil {
		d.Reason = fmt.Sprintf("no local door for %s: %v", a, err)
		if errors.Is(err, local.ErrNoEntry) {
			d.Reason = fmt.Sprintf("%s has no local door that this process can see: its server may not be made by stile.NewServer, "+
				"run with STILE=off or another STILE_DIR, belong to another user, or not be there", a)
		}
		return false
	}
	d.Way = r.Transport
	d.Reason = fmt.Sprintf("%s has a local door, served by process %d", a, r.Peer.PID)
	if r.Transport == "unix" {
		d.Reason += "; not shared memory: " + r.NoSHM
	}
	return true
}
