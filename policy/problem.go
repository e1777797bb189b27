package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Place is where something is written.
type Place struct {
	Line   int `json:"line"`   // from 1; 0: nowhere
	Column int `json:"column"` // from 1, in characters
}

func (p Place) compare(q Place) int {
	return cmp.Or(cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Problem is one fault of a file, or one thing that Lint found.
type Problem struct {
	File string `json:"file"`
	Place
	Path string `json:"path"`           // such as methodConfig[0].x-stile.hedge; empty: the file
	Text string `json:"text"`           // what is wrong, and what to do
	Rule string `json:"rule,omitempty"` // Lint's name for it; of a fault none
}

// Error returns the problem as compilers write one.
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Text)
	return Printable(b.String())
}

// Printable returns s on one line, with escapes for what a terminal may take as a command.
func Printable(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if strconv.IsPrint(r) {
			b.WriteRune(r)
		} else {
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// Problems is the error of [Parse]: all faults of a file, and what would be warned of without them, in its order.
type Problems []Problem

// Error returns a line for each.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
		if p.Rule != "" {
			lines[i] += " (a warning)"
		}
	}
	return strings.Join(lines, "\n")
}

// sorted returns ps in the order of the file.
func (ps Problems) sorted() Problems {
	slices.SortStableFunc(ps, func(a, b Problem) int { return a.compare(b.Place) })
	return ps
}

// meant suggests which of names somebody meant who wrote s: "" or one in parentheses.
func meant(s string, names []string) string {
	if len(s) > maxKeySize {
		return ""
	}
	best, least := "", min(len(s)/2, 4)+1
	for _, name := range names {
		if d := distance(strings.ToLower(s), strings.ToLower(name)); d < least {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is the number of characters to insert, delete, replace or swap with the next
// to make b of a.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	var before, last []int
	row := make([]int, len(y)+1)
	for j := range row {
		row[j] = j
	}
	for i := range x {
		before, last, row = last, row, make([]int, len(y)+1)
		row[0] = i + 1
		for j := range y {
			change := 1
			if x[i] == y[j] {
				change = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+change)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(y)]
}
