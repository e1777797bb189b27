package top

import (
	"fmt"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
)

func (m *model) paint() paint { return paint(m.cfg.Colour) }

func (m model) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

// aboveBody and belowBody are how many lines there are around what scrolls; a low terminal has none below.
const (
	aboveBody = 4
	belowBody = 1
	low       = 10
)

// room is how many lines there are for what scrolls.
func (m *model) room() int {
	if m.height < low {
		return max(m.height-aboveBody, 0)
	}
	return m.height - aboveBody - belowBody
}

// screen is all that is shown: height lines at most, none wider than width.
func (m *model) screen() string {
	head, body := m.body()
	shown, below := m.scrolled(body)
	lines := append([]string{m.title(), m.tabs(), m.notice(), head}, shown...)
	if m.height >= low {
		for len(lines) < m.height-belowBody {
			lines = append(lines, "")
		}
		lines = append(lines, m.foot(below))
	}
	lines = lines[:min(len(lines), m.height)]
	for i, l := range lines {
		lines[i] = strings.TrimRight(cut(l, m.width), " ")
	}
	return strings.Join(lines, "\n")
}

// scrolled are the lines for which there is room, and whether there are more below.
func (m *model) scrolled(body []string) (lines []string, below bool) {
	room := m.room()
	top := min(m.scroll[m.view], max(len(body)-room, 0))
	if m.view == routesView {
		per := m.linesPerRoute()
		top = min(max((m.cursor-room/per/2)*per, 0), max(len(body)-room/per*per, 0))
	}
	end := min(top+room, len(body))
	return body[min(top, len(body)):end], end < len(body)
}

func (m *model) linesPerRoute() int {
	if m.width < narrow {
		return 2
	}
	return 1
}

func (m *model) title() string {
	when := "nothing asked yet"
	if m.answer.Map != nil {
		when = "nothing kept yet"
		if d := span(m.answer.Map); d > 0 {
			when = fmt.Sprintf("%s to %s", d.Round(time.Second), m.answer.Map.Window.To.Local().Format(time.TimeOnly))
		}
	} else if m.err != nil {
		when = "no answer yet"
	}
	name, at := "stile top", ""
	if hub := shown(m.answer.Hub); hub != "" && ansi.StringWidth(name+hub+when)+4 <= m.width {
		at = "  " + hub
	}
	space := m.width - ansi.StringWidth(name+at+when)
	return m.paint().strong(name) + m.paint().faint(at) + strings.Repeat(" ", max(space, 1)) + when
}

// tabs names the views, that which is shown in brackets.
func (m *model) tabs() string {
	names := []string{"routes", "processes", "findings"}
	if m.answer.Map != nil && m.width >= narrow {
		names = []string{fmt.Sprintf("routes %d", len(m.routes())), fmt.Sprintf("processes %d", len(m.processes())), fmt.Sprintf("findings %d", len(m.findings()))}
	}
	at := int(m.view)
	switch m.view {
	case detailView:
		names[0], at = "route", 0
	case helpView:
		names, at = append(names, "keys"), 3
	}
	for i, n := range names {
		names[i] = " " + n + " "
		if i == at {
			names[i] = m.paint().strong("[" + n + "]")
		}
	}
	return strings.Join(names, "")
}

// notice is a line for what is not as usual, and the filter.
func (m *model) notice() string {
	if text := m.state(); text != "" {
		return m.paint().bad(text)
	}
	if m.filter != "" && !m.editing {
		return "only with " + shown(m.filter) + " (esc: all)"
	}
	return ""
}

func (m *model) foot(below bool) string {
	if m.editing {
		return "/" + tail(m.filter, m.width-2) + "_"
	}
	hints := []string{"? keys", "q quit", "/ filter", "space pause"}
	switch m.view {
	case routesView:
		hints = []string{"? keys", "q quit", "enter route", "/ filter", "s sort: " + m.order.String(), "space pause"}
	case detailView, helpView:
		hints = []string{"esc back", "q quit"}
	}
	if below {
		hints = append([]string{"↓ more"}, hints...)
	}
	text := hints[0]
	for _, h := range hints[1:] {
		if ansi.StringWidth(text)+2+len(h) <= m.width {
			text += "  " + h
		}
	}
	return m.paint().faint(text)
}

// tail is the end of a text, in a width.
func tail(s string, width int) string {
	if over := ansi.StringWidth(s) - width; over > 0 {
		return ansi.TruncateLeft(s, over, "")
	}
	return s
}

// body is what the view shows: a line that stays, and those that scroll.
func (m *model) body() (head string, lines []string) {
	switch {
	case m.view == helpView:
		return m.help()
	case m.answer.Map == nil && m.err != nil:
		return "", append([]string{"The hub cannot be asked:"}, append(folded(shown(m.err.Error()), m.width, "  "), folded("It is asked again every "+m.cfg.Every.String()+".", m.width, "")...)...)
	case m.answer.Map == nil:
		return "", []string{"Asking the hub …"}
	case m.view == detailView:
		return m.detailLines()
	case m.view == processesView:
		return m.processLines()
	case m.view == findingsView:
		return m.findingLines()
	}
	routes := m.routes()
	if len(routes) == 0 {
		return "", m.noRoutes()
	}
	return m.routeLines(routes)
}

func (m *model) help() (string, []string) {
	var lines []string
	for _, k := range keyHelp {
		for i, l := range folded(k[1], m.width-9, "") {
			name := k[0]
			if i > 0 {
				name = ""
			}
			lines = append(lines, fit(name, 9, false)+l)
		}
	}
	lines = append(lines, "")
	lines = append(lines, folded("WAITS: where calls wait on average, as shares of a bar: c client's queue, t transport, s server's queue, h handler. It is known of calls between processes that report.", m.width, "")...)
	lines = append(lines, folded("WAY: by which transport. Other words: stile map terms.", m.width, "")...)
	return "", lines
}

// noRoutes says why there are none, and what to do.
func (m *model) noRoutes() (lines []string) {
	say := func(indent, text string) { lines = append(lines, folded(text, m.width, indent)...) }
	switch {
	case m.filter != "":
		say("", "No route has "+shown(m.filter)+" in its name. Esc shows all.")
		return lines
	case len(m.answer.Processes) > 0:
		say("", fmt.Sprintf("No calls in the last %s. Processes that report: %d.", m.cfg.Window, len(m.answer.Processes)))
	default:
		say("", "Nothing yet. "+Advice[0])
		lines = append(lines, "")
		for _, l := range Advice[1:3] {
			say("  ", l)
		}
		lines = append(lines, "")
	}
	say("", Advice[3])
	return lines
}

// Advice says what to do while a hub has nothing.
var Advice = [...]string{
	"Start a service that tells the hub of its calls:",
	"STILE_HUB=localhost:4317 ./service",
	"OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 ./service",
	"What happens now is shown after 10 to 20 s.",
}
