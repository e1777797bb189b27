package top

import (
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
)

// view is what is shown below the title.
type view int

const (
	routesView view = iota
	processesView
	findingsView
	detailView
	helpView
)

// model is what is shown, and changes only by Update.
type model struct {
	cfg       Config
	ask, tick tea.Cmd

	width, height int
	now           time.Time

	answer  Answer    // the last
	asked   time.Time // when the question was put that has no answer yet
	rest    time.Time // until when the hub is left alone
	err     error     // of the last question; nil: it was answered
	away    time.Time // since when there are errors
	fatal   bool
	paused  bool
	view    view
	before  view // helpView
	order   order
	filter  string
	editing bool // of the filter

	selected string         // a route's ID
	detail   routemap.Route // as it was when it was last on the map
	cursor   int            // of the selected, in routesView
	scroll   [helpView + 1]int
}

func newModel(cfg Config, now time.Time) model {
	return model{cfg: cfg, width: 80, height: 24, now: now, asked: now}
}

func (m model) Init() tea.Cmd { return tea.Batch(m.ask, m.tick) }

func (m model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = max(msg.Width, 1), max(msg.Height, 1)
	case tickMsg:
		m.now = time.Time(msg)
		if m.paused || !m.asked.IsZero() || m.now.Before(m.rest) {
			return m, m.tick
		}
		m.asked = m.now
		return m, tea.Batch(m.ask, m.tick)
	case answerMsg:
		return m.answered(msg)
	case tea.PasteMsg:
		if m.editing {
			m.typed(msg.Content)
		}
	case tea.KeyPressMsg:
		return m.key(msg)
	}
	return m, nil
}

// restFor is for how many times as long as it took to answer a hub is left alone: it makes no more than two maps at once for all who ask.
const restFor = 3

func (m model) answered(msg answerMsg) (tea.Model, tea.Cmd) {
	took := time.Duration(0)
	if !m.asked.IsZero() {
		took = min(msg.at.Sub(m.asked), askWithin)
	}
	m.now, m.asked = msg.at, time.Time{}
	if msg.err != nil {
		if m.err == nil {
			m.away = msg.at
		}
		m.err = msg.err
		if m.cfg.Fatal != nil && m.cfg.Fatal(msg.err) {
			m.fatal = true
			return m, tea.Quit
		}
		return m, nil
	}
	m.err, m.rest = nil, msg.at.Add(restFor*took)
	if m.paused && m.answer.Map != nil { // it was asked before
		return m, nil
	}
	m.answer = msg.Answer
	m.settle()
	return m, nil
}

// settle keeps the cursor on the route that is selected, or near where it was.
func (m *model) settle() {
	routes := m.routes()
	at := slices.IndexFunc(routes, func(r routemap.Route) bool { return r.ID() == m.selected })
	if at < 0 && m.view != detailView && m.before != detailView {
		at = min(m.cursor, len(routes)-1)
	}
	if at < 0 {
		return
	}
	m.point(routes, at)
}

func (m *model) point(routes []routemap.Route, at int) {
	m.cursor, m.detail = at, routes[at]
	m.selected = m.detail.ID()
}

// routes are those that the filter lets through, in their order.
func (m *model) routes() []routemap.Route {
	if m.answer.Map == nil {
		return nil
	}
	return sorted(m.answer.Map.Routes, m.order, func(r routemap.Route) bool {
		return m.passes(r.Key.String(), r.Transport, string(r.Mode))
	})
}

func (m *model) processes() []hub.ProcessReport {
	var all []hub.ProcessReport
	for _, p := range m.answer.Processes {
		if m.passes(processName(p)) {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, byUse)
	return all
}

func (m *model) findings() []routemap.Finding {
	if m.answer.Map == nil {
		return nil
	}
	var all []routemap.Finding
	for _, f := range m.answer.Map.Findings {
		if m.passes(f.Kind, f.From.String(), f.To.String(), f.Operation, f.Text) {
			all = append(all, f)
		}
	}
	return all
}

// passes tells whether the filter is in any of the texts, in capitals or not.
func (m *model) passes(texts ...string) bool {
	want := strings.ToLower(m.filter)
	return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(strings.ToLower(s), want) })
}
