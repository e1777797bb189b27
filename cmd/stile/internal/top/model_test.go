package top

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/stile-ipc/stile/hub"
	"github.com/stile-ipc/stile/routemap"
	"github.com/stile-ipc/stile/telemetry"
)

var update = flag.Bool("update", false, "write testdata/*.golden anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)

func histogram(values ...int64) (h telemetry.Histogram) {
	for _, v := range values {
		h.Record(v)
	}
	return h
}

func service(name string) routemap.Node { return routemap.Node{Kind: routemap.Service, Name: name} }

// route is one of n calls of about ns each.
func route(from, to, operation, transport string, n uint64, ns int64) routemap.Route {
	s := &routemap.Stats{Calls: n, Client: histogram(ns/2, ns, ns, ns, 3*ns)}
	return routemap.Route{Key: routemap.Key{From: service(from), To: service(to), Operation: operation, Transport: transport, Mode: routemap.Sync}, Stats: s}
}

// shop is what a hub tells of three services.
func shop() Answer {
	get := route("storefront", "catalog", "shop.catalog.v1.Catalog/Get", "shm", 37_020, 310_000)
	get.Server, get.Gap, get.Request, get.Response = histogram(200_000), histogram(90_000), histogram(64), histogram(4_000)
	get.Waits = routemap.Waits{Calls: 1000, ClientQueue: 20e6, Transport: 60e6, ServerQueue: 30e6, Handler: 200e6}
	get.Switches, get.Wakes = 40_000, 9_000
	get.Errors = map[string]uint64{"unavailable": 30, "not found": 12}
	get.Evidence = []routemap.Evidence{{Trace: "000000000000000000000000000000aa", Span: 7}}
	quote := route("storefront", "pricing", "shop.pricing.v1.Pricing/Quote", "tcp-loopback", 4200, 12_300_000)
	quote.Errors = map[string]uint64{"deadline exceeded": 2100}
	sql := route("catalog", "postgres", "SELECT products", "unix-stream", 90, 800_000)
	sql.To.Kind = routemap.External
	return Answer{
		Hub: "http://localhost:4319",
		Map: &routemap.Report{
			Window: routemap.Window{From: noon.Add(-40 * time.Second), To: noon.Add(-10 * time.Second)},
			Routes: []routemap.Route{sql, get, quote},
			Findings: []routemap.Finding{{
				Kind: routemap.PlusOne, From: service("catalog"), To: sql.To, Operation: "SELECT products", Text: "20 calls one after the other within List, 31 % of its time",
				Evidence: []routemap.Evidence{{Trace: "000000000000000000000000000000bb"}},
			}},
		},
		Processes: []hub.ProcessReport{
			{Service: "catalog", PID: 4711, Host: "box", Seen: noon.Add(-4 * time.Second), Window: 10 * time.Second, Calls: 12_000, CPU: 4e9, Voluntary: 20_000, Involuntary: 500, RunQueue: 120e6, Doorbells: 3000},
			{Service: "storefront", PID: 4712, Host: "box", Seen: noon.Add(-2 * time.Minute), Window: 10 * time.Second, Calls: 24_000, CPU: 15e9, Voluntary: 1000},
		},
	}
}

// driven is a model without a terminal.
type driven struct {
	t *testing.T
	m model
}

func drive(t *testing.T, width, height int) *driven {
	t.Helper()
	d := &driven{t, newModel(Config{Every: 2 * time.Second, Window: 30 * time.Second}, noon)}
	d.m.ask, d.m.tick = func() tea.Msg { return nil }, func() tea.Msg { return nil }
	d.send(tea.WindowSizeMsg{Width: width, Height: height})
	return d
}

// send has the model take a message, and checks what it shows then. It tells whether there is a command.
func (d *driven) send(msg tea.Msg) bool {
	d.t.Helper()
	next, cmd := d.m.Update(msg)
	d.m = next.(model)
	lines := strings.Split(d.m.View().Content, "\n")
	if len(lines) > d.m.height {
		d.t.Errorf("%d lines, of %d", len(lines), d.m.height)
	}
	for _, l := range lines {
		if w := ansi.StringWidth(l); w > d.m.width {
			d.t.Errorf("%d columns, of %d: %q", w, d.m.width, l)
		}
	}
	return cmd != nil
}

func (d *driven) answer(a Answer) { d.t.Helper(); d.send(answerMsg{Answer: a, at: noon}) }

func (d *driven) press(keys ...string) {
	d.t.Helper()
	for _, k := range keys {
		d.send(press(k))
	}
}

func press(k string) tea.KeyPressMsg {
	if code, is := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "backspace": tea.KeyBackspace, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "pgdown": tea.KeyPgDown, "end": tea.KeyEnd, "home": tea.KeyHome}[k]; is {
		return tea.KeyPressMsg{Code: code}
	}
	if k == "space" {
		return tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
	}
	return tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
}

func (d *driven) shows(want ...string) {
	d.t.Helper()
	for _, w := range want {
		if got := d.m.View().Content; !strings.Contains(got, w) {
			d.t.Errorf("%q is not shown:\n%s", w, got)
		}
	}
}

func (d *driven) hides(what ...string) {
	d.t.Helper()
	for _, w := range what {
		if got := d.m.View().Content; strings.Contains(got, w) {
			d.t.Errorf("%q is shown:\n%s", w, got)
		}
	}
}

// TestGolden compares what is shown with files, at two sizes.
func TestGolden(t *testing.T) {
	for _, size := range []struct {
		name          string
		width, height int
	}{{"80x24", 80, 24}, {"40x20", 40, 20}} {
		for name, keys := range map[string][]string{
			"routes": nil, "detail": {"enter"}, "processes": {"p"}, "findings": {"f"}, "help": {"?"}, "nothing": nil, "away": nil,
		} {
			t.Run(name+"-"+size.name, func(t *testing.T) {
				d := drive(t, size.width, size.height)
				switch name {
				case "nothing":
					d.answer(Answer{Hub: "http://localhost:4319", Map: &routemap.Report{}})
				case "away":
					d.send(answerMsg{err: errors.New("http://localhost:4319: connection refused: see that a hub runs there, with stile hub"), at: noon})
				default:
					d.answer(shop())
				}
				d.press(keys...)
				golden(t, name+"-"+size.name, d.m.View().Content+"\n")
			})
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSizes: at no size is anything wider or higher than the terminal, in colour or not.
func TestSizes(t *testing.T) {
	for _, colour := range []bool{false, true} {
		d := drive(t, 80, 24)
		d.m.cfg.Colour = colour
		d.answer(shop())
		for _, keys := range [][]string{{"r"}, {"enter"}, {"end"}, {"esc", "p"}, {"f"}, {"end"}, {"?"}, {"esc", "r", "/", "x"}, {"esc"}} {
			d.press(keys...)
			for width := 1; width <= 130; width += 3 {
				for height := 1; height <= 30; height += 4 {
					d.send(tea.WindowSizeMsg{Width: width, Height: height})
				}
			}
		}
	}
}

// TestColour: colour says nothing that the text does not.
func TestColour(t *testing.T) {
	for _, keys := range [][]string{{"s"}, {"down", "enter"}, {"p"}, {"f"}, {"?"}, {"/", "a"}} {
		plain, coloured := drive(t, 80, 40), drive(t, 80, 40)
		coloured.m.cfg.Colour = true
		for _, d := range []*driven{plain, coloured} {
			d.answer(shop())
			d.send(answerMsg{err: errors.New("gone"), at: noon})
			d.press(keys...)
		}
		text := coloured.m.View().Content
		if stripped(text) != plain.m.View().Content || !strings.Contains(text, "\x1b[") {
			t.Errorf("%s: in colour\n%s\nwithout\n%s", keys, text, plain.m.View().Content)
		}
	}
}

// stripped is a text without colours, and without what is then blank at the ends of lines.
func stripped(text string) string {
	lines := strings.Split(ansi.Strip(text), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

func TestSort(t *testing.T) {
	d := drive(t, 130, 24)
	d.answer(shop())
	at := func(name string) int { return strings.Index(d.m.View().Content, name) }
	const get, quote, sql = "Catalog/Get", "Pricing/Quote", "SELECT products"
	for _, c := range []struct{ by, first, second, third string }{
		{"CALL/S", get, quote, sql}, {"FAILED", quote, get, sql}, {"P50", quote, sql, get}, {"P99", quote, sql, get}, {"WAY", get, quote, sql}, {"ROUTE", sql, get, quote}, {"CALL/S", get, quote, sql},
	} {
		d.shows("▾" + c.by)
		if at(c.first) > at(c.second) || at(c.second) > at(c.third) {
			t.Errorf("by %s:\n%s", c.by, d.m.View().Content)
		}
		d.press("s")
	}
	d.press("S")
	d.shows("▾CALL/S")
}

// TestSelected: the cursor stays on its route, wherever that goes.
func TestSelected(t *testing.T) {
	d := drive(t, 130, 24)
	d.answer(shop())
	d.press("down")
	const quote = "shop.pricing.v1.Pricing/Quote"
	marked := func() string {
		for l := range strings.Lines(d.m.View().Content) {
			if strings.HasPrefix(l, ">") {
				return strings.TrimSpace(l)
			}
		}
		return ""
	}
	if !strings.HasSuffix(marked(), quote) {
		t.Errorf("marked: %q", marked())
	}
	d.press("s")
	more := shop()
	more.Map.Routes = append(more.Map.Routes, route("a", "b", "c", "shm", 1e6, 5))
	d.answer(more)
	if !strings.HasSuffix(marked(), quote) {
		t.Errorf("marked after sorting: %q", marked())
	}
	d.press("enter")
	d.shows("deadline exceeded", "50.0 %")
	gone := shop()
	gone.Map.Routes = gone.Map.Routes[:2]
	d.answer(gone)
	d.shows("shop.pricing.v1.Pricing/Quote", "It was not called in the last 30s")
	d.press("?", "esc")
	d.shows("It was not called in the last 30s")
	d.press("esc")
	if marked() == "" {
		t.Error("nothing is marked when the route has gone")
	}
	d.press("end", "down", "home", "up")
	d.answer(Answer{Map: &routemap.Report{}})
	d.press("enter", "down")
	d.shows("[routes 0]")
}

func TestFilter(t *testing.T) {
	d := drive(t, 90, 24)
	d.answer(shop())
	d.press("/", "P", "r", "q", "backspace", "i")
	d.shows("/Pri_", "Pricing/Quote", "[routes 1]")
	d.hides("Catalog/Get")
	d.press("enter")
	d.shows("only with Pri")
	d.press("p")
	d.shows("No process has Pri")
	d.press("f", "r", "/", "z", "?", "space")
	d.shows("No route has Priz?  in its name", "/Priz? _")
	d.press("esc")
	d.shows("[routes 3]", "Catalog/Get")
	d.press("/")
	d.send(tea.PasteMsg{Content: "\x1b[31mcat\nalog" + strings.Repeat("x", 500)})
	if n := len(d.m.filter); n != maxFilter || strings.ContainsAny(d.m.filter, "\x1b\n") {
		t.Errorf("%d bytes: %q", n, d.m.filter)
	}
	for range maxFilter + 2 {
		d.press("backspace")
	}
	d.shows("[routes 3]")
}

// TestAway: while the hub is away, what it told last stays and is marked so; when it is back, so it is without a key.
func TestAway(t *testing.T) {
	d := drive(t, 80, 24)
	gone := errors.New("http://localhost:4319: connection refused")
	d.send(answerMsg{err: gone, at: noon})
	d.shows("The hub cannot be asked", "connection refused", "every 2s")
	if !d.send(tickMsg(noon.Add(2 * time.Second))) {
		t.Error("it is not asked again")
	}
	d.answer(shop())
	d.shows("Catalog/Get")
	d.hides("refused", "AWAY")
	d.send(tickMsg(noon.Add(4 * time.Second)))
	d.send(answerMsg{err: gone, at: noon.Add(5 * time.Second)})
	d.send(answerMsg{err: gone, at: noon.Add(9 * time.Second)})
	d.shows("AWAY since 12:00:05", "refused", "Catalog/Get")
	d.answer(shop())
	d.hides("AWAY")

	d.send(tickMsg(noon.Add(10 * time.Second)))
	d.send(tickMsg(noon.Add(18 * time.Second)))
	d.shows("no answer for 8s")
	d.answer(shop())
	d.hides("no answer")
}

// TestSlow: a hub that takes long to answer is asked less often.
func TestSlow(t *testing.T) {
	d := drive(t, 80, 24)
	d.send(answerMsg{Answer: shop(), at: noon.Add(4 * time.Second)})
	d.send(tickMsg(noon.Add(15 * time.Second)))
	if !d.m.asked.IsZero() {
		t.Error("it is asked after 11 s, having taken 4")
	}
	d.send(tickMsg(noon.Add(16 * time.Second)))
	if d.m.asked.IsZero() {
		t.Error("it is not asked after 12 s")
	}
}

func TestFatal(t *testing.T) {
	d := drive(t, 80, 24)
	d.m.cfg.Fatal = func(error) bool { return true }
	if !d.send(answerMsg{err: errors.New("use https")}) || !d.m.fatal {
		t.Error("it goes on")
	}
}

// TestPause: nothing is asked, and what is shown stays, until it goes on.
func TestPause(t *testing.T) {
	d := drive(t, 80, 24)
	d.answer(shop())
	d.send(tickMsg(noon.Add(time.Second)))
	d.press("space")
	d.answer(Answer{Map: &routemap.Report{}})
	d.shows("PAUSED", "Catalog/Get")
	d.send(tickMsg(noon.Add(3 * time.Second)))
	if !d.m.asked.IsZero() {
		t.Error("it is asked while paused")
	}
	if !d.send(press("space")) || d.m.asked.IsZero() {
		t.Error("it is not asked at once")
	}
	d.hides("PAUSED")
	d.press("space")
	if d.send(press("space")) {
		t.Error("it is asked twice at once")
	}
}

// TestHostile: nothing that a stranger names reaches the terminal but as text.
func TestHostile(t *testing.T) {
	const evil = "\x1b]0;owned\a\x1b[2J\u202egnp\u0085\r\n\x9b31m"
	heap := "z" + strings.Repeat("\u0301", 100)
	a := shop()
	a.Hub, a.Left = evil, map[string]uint64{evil: 3}
	r := route(evil, heap, evil, evil, 1e9, 5)
	r.Mode = evil
	r.Errors = map[string]uint64{evil: 5}
	r.Evidence = []routemap.Evidence{{Trace: evil}}
	r.Waits = routemap.Waits{Calls: 1, ClientQueue: -5, Transport: 1<<63 - 1, ServerQueue: 1<<63 - 1, Handler: 1<<63 - 1}
	a.Map.Routes = append(a.Map.Routes, r, routemap.Route{Key: routemap.Key{Operation: "no stats"}})
	a.Map.Findings = append(a.Map.Findings, routemap.Finding{Kind: evil, From: service(evil), To: service(evil), Operation: evil, Text: evil, Evidence: r.Evidence})
	a.Processes = append(a.Processes, hub.ProcessReport{Service: evil, Host: evil, CPU: -1, RunQueue: -1, Window: -5})
	var b strings.Builder
	for _, width := range []int{40, 80, 300} {
		d := drive(t, width, 50)
		for _, keys := range [][]string{{}, {"home", "enter"}, {"esc", "p"}, {"f"}, {"f", "f"}} {
			d.answer(a)
			d.press(keys...)
			b.WriteString(d.m.View().Content)
		}
		d.send(answerMsg{err: errors.New(evil), at: noon})
		b.WriteString(d.m.View().Content)
	}
	if err := Print(&b, a, time.Second); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\a", "\u202e", "\u0085", "\r", "\x9b", "\u0301\u0301\u0301"} {
		if strings.Contains(b.String(), bad) {
			t.Errorf("%q is shown", bad)
		}
	}
}

// TestNumbers: what is written fits in its column.
func TestNumbers(t *testing.T) {
	for _, n := range []int64{-1, 0, 1, 999, 1000, 999_499, 999_999, 12_345_678, 999_999_999, 99e9, 101e9, 6001e9, 1<<63 - 1} {
		for name, text := range map[string]string{"duration": short(n), "number": many(float64(n)), "share": share(float64(n), 1000), "size": size(n)} {
			if w := ansi.StringWidth(text); w > 7 || w == 0 || strings.Contains(text, "e+") {
				t.Errorf("%s of %d: %q", name, n, text)
			}
		}
	}
	for _, c := range []struct{ got, want string }{
		{short(1_234_567), "1.23ms"}, {short(999_999), "1ms"}, {short(90e9), "90s"}, {many(1234), "1.23k"}, {many(0.001), "<0.01"}, {share(1, 3), "33.3 %"}, {share(0, 0), "-"}, {share(1, 1e6), "<0.1 %"}, {short(90 * 60e9), "90m"}, {short(1e16), "2778h"},
		{waitBar(routemap.Waits{Calls: 1, Transport: 1, Handler: 1}, 8, false), "tttthhhh"}, {waitBar(routemap.Waits{}, 8, false), "-"},
	} {
		if c.got != c.want {
			t.Errorf("%q, not %q", c.got, c.want)
		}
	}
}

// TestDecided: a route's page tells what policies decided, also of a route without a call.
func TestDecided(t *testing.T) {
	for _, calls := range []uint64{1000, 0} {
		a := shop()
		r := route("a", "b", "s.S/M", "shm", calls, 5)
		r.Decisions = routemap.Decisions{Retries: 12, CacheHits: 34567}
		r.Left = histogram(5e9)
		a.Map.Routes = []routemap.Route{r}
		d := drive(t, 80, 50)
		d.answer(a)
		d.press("enter")
		d.shows("What policies decided", "12  retries", "34567  cache hits", "left", "5s")
		d.hides("hedges", "NaN")
	}
}
