// Package top shows a hub's map live in a terminal: routes, processes, what stands out.
package top

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// Answer is what a hub tells now.
type Answer struct {
	Hub       string // who was asked
	Map       *routemap.Report
	Left      map[string]uint64 // what the map does not show, by reason
	Processes []hub.ProcessReport
}

// Config says what to show, and where.
type Config struct {
	Ask    func(ctx context.Context) (Answer, error)
	Fatal  func(error) bool // no use in asking again
	Every  time.Duration
	Window time.Duration // that is asked for
	Colour bool
	In     io.Reader // nil: the terminal
	Out    io.Writer
}

// askWithin is how long a hub may take to answer.
const askWithin = 30 * time.Second

// Run shows the map until it is told to quit. The error is that of the last question if none was answered, or one that is fatal.
func Run(ctx context.Context, cfg Config) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var asking, ticking sync.Mutex
	m := newModel(cfg, time.Now())
	m.ask = func() tea.Msg {
		asking.Lock()
		defer asking.Unlock()
		return ask(ctx, cfg)
	}
	m.tick = func() tea.Msg {
		ticking.Lock()
		defer ticking.Unlock()
		return tick(ctx, cfg.Every)
	}
	opts := []tea.ProgramOption{tea.WithContext(ctx), tea.WithOutput(cfg.Out), tea.WithoutSignalHandler()}
	if cfg.In != nil {
		opts = append(opts, tea.WithInput(cfg.In), tea.WithWindowSize(m.width, m.height))
	}
	last, err := tea.NewProgram(m, opts...).Run()
	cancel()
	awaitTurn(&asking) // what begins now ends at once
	awaitTurn(&ticking)
	if err != nil {
		return err
	}
	if m = last.(model); m.err != nil && (m.answer.Map == nil || m.fatal) {
		return m.err
	}
	return nil
}

func awaitTurn(turn *sync.Mutex) {
	turn.Lock()
	defer turn.Unlock()
}

type answerMsg struct {
	Answer
	err error
	at  time.Time
}

type tickMsg time.Time

func ask(ctx context.Context, cfg Config) tea.Msg {
	within, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	a, err := cfg.Ask(within)
	if err == nil && a.Map == nil {
		err = errors.New("the hub answered without a map")
	}
	return answerMsg{a, err, time.Now()}
}

func tick(ctx context.Context, every time.Duration) tea.Msg {
	t := time.NewTimer(every)
	defer t.Stop()
	select {
	case now := <-t.C:
		return tickMsg(now)
	case <-ctx.Done():
		return nil
	}
}
