package top

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Print writes the routes as plain text, the most called first.
func Print(out io.Writer, a Answer, window time.Duration) error {
	var b strings.Builder
	m := model{cfg: Config{Window: window}, width: narrow, answer: a}
	routes := m.routes()
	if d := span(a.Map); d > 0 {
		fmt.Fprintf(&b, "%s: %d routes, %s to %s\n", shown(a.Hub), len(routes), d.Round(time.Second), a.Map.Window.To.Format(time.RFC3339))
	} else {
		fmt.Fprintf(&b, "%s: nothing kept of the last %s\n", shown(a.Hub), window)
	}
	for _, why := range slices.Sorted(maps.Keys(a.Left)) {
		fmt.Fprintf(&b, "  %s: %d\n", shown(why), a.Left[why])
	}
	if len(routes) == 0 {
		m.width = 1 << 10
		fmt.Fprintf(&b, "%s\n", strings.Join(m.noRoutes(), "\n"))
		_, err := io.WriteString(out, b.String())
		return err
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CALL/S\tFAILED\tP50\tP99\tWAITS\tWAY\tROUTE")
	for _, r := range routes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", rate(r.Calls, span(a.Map)), failedShare(r), quantile(r.Duration(), 0.5), quantile(r.Duration(), 0.99),
			waitBar(r.Waits, barWidth, false), shown(cmp.Or(r.Transport, "-")), shown(r.Key.String()))
	}
	_ = w.Flush() // to memory
	_, err := io.WriteString(out, b.String())
	return err
}
