package demo

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
	"github.com/stile-ipc/stile/cmd/stile/internal/terminal"
)

const (
	// mailDelay is how long a message takes the slow mailer.
	mailDelay = 100 * time.Millisecond
	// sentLimit is how long is waited until the queue's messages are handled.
	sentLimit = 10 * time.Second
	askQueue  = 50 * time.Millisecond
)

// Mail is how placing orders went while the mailer was slow.
type Mail struct {
	Delay  float64  `json:"mailer_delay_ms"`
	Called MailSide `json:"called"`            // orders calls the mailer
	Queued MailSide `json:"queued"`            // the mailer hears of orders by a queue
	Queue  Depth    `json:"queue"`             // when the load ended
	Sent   *float64 `json:"all_sent_after_ms"` // from then on; nil: not within 10 s
	Dead   uint64   `json:"dead_letters"`      // in the end
}

// MailSide is how the orders went.
type MailSide struct {
	Orders  int64   `json:"orders"` // measured
	P50     float64 `json:"p50_ms"`
	P99     float64 `json:"p99_ms"`
	Failed  int64   `json:"failed"` // requests, measured or not
	Failure string  `json:"failure,omitempty"`
}

// Depth is what a queue holds.
type Depth struct {
	Depth  uint64  `json:"depth"` // messages that are not handled
	Lag    uint64  `json:"lag"`   // of them, those that nobody has yet
	Oldest float64 `json:"oldest_ms"`
	Dead   uint64  `json:"-"`
}

// compareMail runs the load while the mailer is slow, twice.
func (d *demo) compareMail(ctx context.Context, rate float64) (*Mail, error) {
	m := &Mail{Delay: milliseconds(mailDelay)}
	slow := []string{"--delay", mailDelay.String()}
	called, err := d.startMail(ctx, "called", "is called", map[string][]string{"mailer": slow})
	if err != nil {
		return nil, err
	}
	if m.Called, err = d.placeOrders(ctx, called, rate); err != nil {
		return nil, err
	}
	if err := called.stop(ctx); err != nil {
		return nil, err
	}
	data := filepath.Join(d.temp, "q") // short, for the path of a unix socket is
	folder := filepath.Join(data, "queue")
	queued, err := d.startMail(ctx, "queued", "hears of orders by a queue", map[string][]string{"mailer": append(slow, "--queue", folder), "orders": {"--data", data}})
	if err != nil {
		return nil, err
	}
	if err := d.awaitMailer(ctx, folder); err != nil {
		return nil, err
	}
	if m.Queued, err = d.placeOrders(ctx, queued, rate); err != nil {
		return nil, err
	}
	if err := d.awaitSent(ctx, m, folder); err != nil {
		return nil, err
	}
	return m, queued.stop(ctx)
}

func (d *demo) startMail(ctx context.Context, name, how string, args map[string][]string) (*set, error) {
	d.screen.say("starting six services over Stile; the mailer takes %v for a message, and %s …", mailDelay, how)
	sockets := filepath.Join(d.temp, name)
	if err := os.MkdirAll(sockets, 0o700); err != nil {
		return nil, err
	}
	s, err := d.startSet(ctx, setConfig{
		bin: d.cfg.Shop, data: d.temp, network: d.cfg.Network, sockets: sockets,
		stile: "on", dir: d.doors(), inFlight: mostInFlight, args: args,
	})
	if err != nil {
		return nil, err
	}
	if _, err := d.findWay(ctx, s); err != nil {
		return nil, err
	}
	return s, d.warm(ctx, s)
}

// awaitMailer returns when the mailer is subscribed.
func (d *demo) awaitMailer(ctx context.Context, folder string) error {
	for begin := time.Now(); ; {
		_, err := d.cfg.Queue(ctx, folder)
		if err == nil || time.Since(begin) > sentLimit {
			return err
		}
		if err := pause(ctx, askQueue); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// placeOrders runs the load, and times its orders.
func (d *demo) placeOrders(ctx context.Context, s *set, rate float64) (MailSide, error) {
	length := d.cfg.Duration / 10
	var times measure.Histogram
	w := newWindow(s.send)
	measured := time.Now().Add(length / 5)
	w.each = func(a answer) {
		if a.err == nil && isOrder(a.number) && a.due.After(measured) {
			times.Record(a.took)
		}
	}
	l := &load{rate: rate, inFlight: mostInFlight, sleep: preciseSleep}
	l.enter(w)
	limited, cancel := context.WithTimeout(ctx, length)
	defer cancel()
	l.run(limited)
	if err := context.Cause(ctx); err != nil {
		return MailSide{}, err
	}
	side := MailSide{Orders: times.Count, P50: milliseconds(times.Quantile(0.5)), P99: milliseconds(times.Quantile(0.99))}
	if _, side.Failed = w.counts(); w.err != nil {
		side.Failure = w.err.Error()
	}
	return side, nil
}

// awaitSent notes what the queue holds, and waits until it is handled.
func (d *demo) awaitSent(ctx context.Context, m *Mail, folder string) error {
	begin := time.Now()
	for first := true; ; first = false {
		depth, err := d.cfg.Queue(ctx, folder)
		if err != nil {
			return err
		}
		if first {
			m.Queue = depth
		}
		m.Dead = depth.Dead
		took := time.Since(begin)
		if depth.Depth == 0 {
			m.Sent = new(milliseconds(took))
			return nil
		}
		if took > sentLimit {
			return nil
		}
		if err := pause(ctx, askQueue); err != nil {
			return err
		}
	}
}

// table sets both ways side by side.
func (m *Mail) table(style terminal.Style) string {
	var b strings.Builder
	title := fmt.Sprintf("placing an order, mailer takes %.0f ms", m.Delay)
	fmt.Fprintf(&b, "\n%s\n", style.Strong(fmt.Sprintf("%-38s %6s %10s   %s", title, "called", "by queue", "ratio")))
	line := func(label, called, queued, verdict string) {
		fmt.Fprintf(&b, "%-34s %10s %10s   %s\n", label, called, queued, verdict)
	}
	line("orders", fmt.Sprint(m.Called.Orders), fmt.Sprint(m.Queued.Orders), "")
	line("p50, ms", measure.Number(m.Called.P50), measure.Number(m.Queued.P50), verdict(style, ratio(m.Called.P50, m.Queued.P50), "lower", "higher"))
	line("p99, ms", measure.Number(m.Called.P99), measure.Number(m.Queued.P99), verdict(style, ratio(m.Called.P99, m.Queued.P99), "lower", "higher"))
	line("failed requests", fmt.Sprint(m.Called.Failed), fmt.Sprint(m.Queued.Failed), "")
	line("queue: depth when the load ended", "–", fmt.Sprint(m.Queue.Depth), "")
	line("queue: lag when the load ended", "–", fmt.Sprint(m.Queue.Lag), "")
	line("queue: oldest message then, ms", "–", measure.Number(m.Queue.Oldest), "")
	line("queue: all sent after, ms", "–", numberOf(m.Sent), "")
	line("queue: dead letters", "–", fmt.Sprint(m.Dead), "")
	for _, side := range []MailSide{m.Called, m.Queued} {
		if side.Failed > 0 {
			fmt.Fprintf(&b, "%s\n", style.Bad("A request failed: "+side.Failure))
		}
	}
	return b.String()
}
