package top

import (
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"
)

// shown is a name that a stranger gave, with nothing in it that a terminal would obey, and no heap of marks on one letter.
func shown(s string) string {
	marks, obeyed := 0, false
	for _, r := range s {
		if !unicode.In(r, unicode.Mn, unicode.Me) {
			marks = 0
		} else if marks++; marks > maxMarks {
			return strconv.QuoteToASCII(s)
		}
		obeyed = obeyed || !strconv.IsPrint(r)
	}
	if obeyed {
		return strconv.Quote(s)
	}
	return s
}

// maxMarks is how many a letter may have.
const maxMarks = 2

// paint colours text, if it is on.
type paint bool

func (p paint) wrap(code, text string) string {
	if !p || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (p paint) strong(text string) string { return p.wrap("1", text) }
func (p paint) faint(text string) string  { return p.wrap("2", text) }
func (p paint) bad(text string) string    { return p.wrap("31", text) }

// fit is text in a width: cut, or filled up.
func fit(text string, width int, right bool) string {
	text = cut(text, width)
	space := strings.Repeat(" ", max(width-ansi.StringWidth(text), 0))
	if right {
		return space + text
	}
	return text + space
}

func cut(text string, width int) string { return ansi.Truncate(text, max(width, 0), "…") }

// folded is text on lines of a width, each after an indent.
func folded(text string, width int, indent string) []string {
	lines := strings.Split(ansi.Wrap(text, max(width-len(indent), 1), " /"), "\n")
	for i, l := range lines {
		lines[i] = indent + l
	}
	return lines
}

// short is a duration of 6 characters at most.
func short(ns int64) string {
	f := float64(ns)
	switch {
	case f < 0:
		return "-"
	case f == 0:
		return "0"
	case f < 999.5:
		return strconv.FormatInt(ns, 10) + "ns"
	case f < 999.5e3:
		return digits(f/1e3) + "µs"
	case f < 999.5e6:
		return digits(f/1e6) + "ms"
	case f < 100e9:
		return digits(f/1e9) + "s"
	case f < 100*60e9:
		return digits(f/60e9) + "m"
	}
	return cut(strconv.FormatFloat(f/3600e9, 'f', 0, 64)+"h", 6)
}

// digits has three that count, and no exponent, below 1000.
func digits(f float64) string { return strconv.FormatFloat(f, 'g', 3, 64) }

// many is a number, or a rate, of 6 characters at most.
func many(f float64) string {
	switch {
	case !(f >= 0): // NaN, too
		return "-"
	case f == 0:
		return "0"
	case f < 0.01:
		return "<0.01"
	case f < 999.5:
		return digits(f)
	case f < 999.5e3:
		return digits(f/1e3) + "k"
	case f < 999.5e6:
		return digits(f/1e6) + "M"
	case f < 999.5e9:
		return digits(f/1e9) + "G"
	}
	return "many"
}

// share is a part in percent, of 7 characters at most.
func share(part, of float64) string {
	switch f := 100 * part / of; {
	case !(of > 0) || !(part >= 0):
		return "-"
	case f == 0:
		return "0 %"
	case f < 0.1:
		return "<0.1 %"
	case f > 99999:
		return "many %"
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64) + " %"
	default:
		return strconv.FormatFloat(f, 'f', 1, 64) + " %"
	}
}

// ago is how long ago something was, by our clock and a hub's.
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "-"
	}
	return short(int64(max(now.Sub(then), 0).Round(time.Second)))
}

// column is one of a table.
type column struct {
	title string
	width int
	right bool
	least int // the terminal's width from which there is room for it
}

// row is a line of a table: a cell for each column that has room.
func row(columns []column, width int, cells ...string) string {
	var b strings.Builder
	for i, c := range columns {
		if width >= c.least {
			b.WriteString(fit(cells[i], c.width, c.right))
			b.WriteByte(' ')
		}
	}
	return b.String()
}

func titles(columns []column) (all []string) {
	for _, c := range columns {
		all = append(all, c.title)
	}
	return all
}
