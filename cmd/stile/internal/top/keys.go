package top

import (
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
)

// maxFilter is how many characters a filter has at most.
const maxFilter = 64

// keyHelp is what helpView lists.
var keyHelp = [][2]string{
	{"r p f", "routes, processes, findings"},
	{"tab", "the next of them"},
	{"↑ ↓ k j", "up and down; also page up, page down, home, end"},
	{"enter", "all that is known of a route"},
	{"esc", "back; without a filter"},
	{"s S", "sort routes by the next, the previous column"},
	{"/", "show only what has a text in its name"},
	{"space", "pause, and go on"},
	{"?", "this list"},
	{"q", "quit"},
}

func (m model) key(msg tea.KeyPressMsg) (tea.Model, tea.Cmd) {
	name := msg.String()
	switch name {
	case "ctrl+c":
		return m, tea.Quit
	case "ctrl+z":
		return m, tea.Suspend
	}
	if m.editing {
		m.edit(name, msg.Key().Text)
		return m, nil
	}
	switch name {
	case "q":
		return m, tea.Quit
	case "space":
		return m.pause()
	case "r", "p", "f", "tab", "?", "enter", "esc":
		m.turn(name)
	case "/":
		if m.view == detailView || m.view == helpView {
			m.turn("r")
		}
		m.editing = true
	case "s", "S":
		m.order = m.order.next(name == "s")
		m.scroll[routesView] = 0
		m.settle()
	default:
		m.move(name)
	}
	return m, nil
}

func (m model) pause() (tea.Model, tea.Cmd) {
	m.paused = !m.paused
	if m.paused || !m.asked.IsZero() {
		return m, nil
	}
	m.asked = m.now
	return m, m.ask
}

// turn goes to another view.
func (m *model) turn(name string) {
	switch name {
	case "r":
		m.view = routesView
	case "p":
		m.view = processesView
	case "f":
		m.view = findingsView
	case "tab":
		m.view = map[view]view{routesView: processesView, processesView: findingsView}[m.view]
	case "enter":
		if m.view == routesView && len(m.routes()) > 0 {
			m.view, m.scroll[detailView] = detailView, 0
		}
	case "?":
		if m.view == helpView {
			m.view = m.before
			break
		}
		m.before, m.view, m.scroll[helpView] = m.view, helpView, 0
	case "esc":
		m.back()
	}
	if m.view != helpView {
		m.before = routesView
	}
	m.settle()
}

func (m *model) back() {
	switch m.view {
	case helpView:
		m.view = m.before
	case detailView:
		m.view = routesView
	default:
		m.filter = ""
	}
}

// edit is a key while the filter is written.
func (m *model) edit(name, text string) {
	switch name {
	case "enter":
		m.editing = false
	case "esc":
		m.editing, m.filter = false, ""
	case "backspace":
		_, size := utf8.DecodeLastRuneInString(m.filter)
		m.filter = m.filter[:len(m.filter)-size]
	default:
		m.typed(text)
		return
	}
	m.settle()
}

func (m *model) typed(text string) {
	for _, r := range text {
		if strconv.IsPrint(r) && utf8.RuneCountInString(m.filter) < maxFilter {
			m.filter += string(r)
		}
	}
	m.scroll = [len(m.scroll)]int{}
	m.settle()
}

// move goes up or down: the cursor among routes, the lines of the others.
func (m *model) move(name string) {
	page := max(m.room()-1, 1)
	by, known := map[string]int{
		"up": -1, "k": -1, "down": 1, "j": 1, "pgup": -page, "pgdown": page, "home": -1 << 30, "g": -1 << 30, "end": 1 << 30, "G": 1 << 30,
	}[name]
	if !known {
		return
	}
	if m.view == routesView {
		if routes := m.routes(); len(routes) > 0 {
			m.point(routes, min(max(m.cursor+by, 0), len(routes)-1))
		}
		return
	}
	_, lines := m.body()
	m.scroll[m.view] = min(max(m.scroll[m.view]+by, 0), max(len(lines)-m.room(), 0))
}

// silence is how long a question has had no answer, if that is long.
func (m *model) silence() time.Duration {
	if d := m.now.Sub(m.asked); !m.asked.IsZero() && d >= 5*time.Second {
		return d
	}
	return 0
}

// state says what is not as usual.
func (m *model) state() string {
	var all []string
	if m.paused {
		all = append(all, "PAUSED")
	}
	if m.err != nil && m.answer.Map != nil {
		all = append(all, "AWAY since "+m.away.Local().Format(time.TimeOnly)+": "+shown(m.err.Error()))
	} else if d := m.silence(); d > 0 {
		all = append(all, "no answer for "+d.Round(time.Second).String())
	}
	if n := damaged(m.answer.Left); n > 0 {
		all = append(all, strconv.FormatUint(n, 10)+" damaged windows left out")
	}
	return strings.Join(all, " · ")
}

func damaged(left map[string]uint64) (n uint64) {
	for _, c := range left {
		n += c
	}
	return n
}
