package demo

import (
	"context"
	"os"
	"path/filepath"
)

// watchRate bounds the load that is watched, in requests/s: each request is some 50 spans.
const watchRate = 100

// trace runs the load while something takes the programs' traces.
func (d *demo) trace(ctx context.Context, rate float64) (err error) {
	endpoint, end, err := d.cfg.Watch(ctx, filepath.Join(d.temp, "hub"))
	if err != nil {
		return err
	}
	ended := false
	defer func() {
		if !ended {
			_ = end(context.WithoutCancel(ctx)) // err says what is wrong
		}
	}()
	d.screen.say("starting six services over Stile, which send a hub their traces and what they count …")
	data := filepath.Join(d.temp, "w") // short, for the paths of unix sockets are
	folder := filepath.Join(data, "queue")
	if err := d.watched(ctx, "watched", endpoint, rate, nil, ""); err != nil {
		return err
	}
	d.screen.say("and again, with e-mails by a queue …")
	if err := d.watched(ctx, "watched2", endpoint, rate, map[string][]string{"orders": {"--data", data}, "mailer": {"--queue", folder}}, folder); err != nil {
		return err
	}
	ended = true
	return end(ctx)
}

// watched runs the load on services that send what they trace and count to endpoint. Their mailer has a queue in a folder, or it is called.
func (d *demo) watched(ctx context.Context, name, endpoint string, rate float64, args map[string][]string, folder string) error {
	sockets := filepath.Join(d.temp, name)
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return err
	}
	s, err := d.startSet(ctx, setConfig{
		bin: d.cfg.Shop, data: d.temp, network: d.cfg.Network, sockets: sockets, stile: "on", dir: d.doors(), inFlight: mostInFlight, traces: endpoint, hub: endpoint, args: args,
	})
	if err != nil {
		return err
	}
	if folder != "" {
		if err := d.awaitMailer(ctx, folder); err != nil {
			return err
		}
	}
	if _, err := d.placeOrders(ctx, s, min(rate, watchRate)); err != nil {
		return err
	}
	return s.stop(ctx) // which sends what is not sent yet
}
