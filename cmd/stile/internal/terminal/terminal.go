// Package terminal tells whether output goes to a person's terminal, and styles
// it only then.
package terminal

import (
	"io"
	"os"
)

// Style writes text in colour, or as it is.
type Style struct{ on bool }

// For returns the style for what is written to w: coloured on a terminal that
// can show it, unless NO_COLOR is set (https://no-color.org).
func For(w io.Writer) Style { return Style{on: Is(w) && os.Getenv("NO_COLOR") == ""} }

// On reports whether colours and cursor movement may be written.
func (s Style) On() bool { return s.on }

// Good marks text as what one hopes for.
func (s Style) Good(text string) string { return s.wrap("32", text) }

// Bad marks text as what one does not.
func (s Style) Bad(text string) string { return s.wrap("31", text) }

// Strong marks text as what matters.
func (s Style) Strong(text string) string { return s.wrap("1", text) }

// Faint marks text as secondary.
func (s Style) Faint(text string) string { return s.wrap("2", text) }

func (s Style) wrap(code, text string) string {
	if !s.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// Is reports whether w is a terminal that understands escape sequences.
func Is(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("TERM") != "dumb" && isTerminal(f.Fd())
}
