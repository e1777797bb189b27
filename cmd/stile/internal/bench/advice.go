package bench

import (
	"fmt"
	"math"
	"strings"

	"github.com/stile-ipc/stile/cmd/stile/internal/measure"
)

// Advice says which way to use and why, in sentences for people.
type Advice struct {
	Use string   `json:"use"` // the name of a way
	Why []string `json:"why"`
	// Findings are the cells in which another way than the one that Stile takes is
	// better.
	Findings []string `json:"findings"`
}

// notable is by how much medians must differ to be worth a word.
const notable = 1.05

// fewRounds is below what the rounds say little about each other.
const fewRounds = 3

// fullName says what a way is.
func fullName(way string) string {
	switch way {
	case "shm":
		return "shared memory"
	case "unix":
		return "Stile's unix socket"
	case "grpc":
		return "gRPC"
	case "grpc-unix":
		return "gRPC over a unix socket"
	case "grpc-tcp":
		return "gRPC over TCP"
	}
	return way
}

// ratio says how many times less a is than b, and whether the rounds agree that
// there is a difference at all.
func ratio(a, b Stat) (times float64, clear bool) {
	if a.Median <= 0 || b.Median <= 0 {
		return 1, false
	}
	times = b.Median / a.Median
	clear = max(times, 1/times) > notable && (a.Max < b.Min || b.Max < a.Min)
	return times, clear
}

// advise compares the way that stile.NewClient would take with all others.
func (r *Result) advise() Advice {
	own, rival := r.ownWay(), r.rivalWay()
	a := Advice{Use: own, Findings: []string{}}
	if own == "" {
		a.Use = rival
		a.say("Use %s: there is no local way here. %s.", fullName(rival), sentences(r.Absent))
		return a
	}
	if r.Rounds >= fewRounds {
		a.Findings = r.findings(own)
	}
	byItself := "stile.NewClient does by itself"
	if r.Environment != "" {
		byItself = fmt.Sprintf("stile.NewClient would, but for %s in this environment", r.Environment)
	}
	gains, losses := r.gains(own, rival), r.losses(own, rival)
	switch {
	case len(gains) > 0 && losses == "":
		a.say("Use %s; %s. Against %s %s.", fullName(own), byItself, fullName(rival), strings.Join(gains, ", and "))
	case r.mean(own, rival) > notable:
		a.say("Use %s; %s. Against %s %s, but %s.", fullName(own), byItself, fullName(rival), strings.Join(gains, ", and "), losses)
	case len(a.Findings) > 0 || losses != "":
		a.Use = rival
		a.say("Use %s: over all cells %s gains nothing here.", fullName(rival), fullName(own))
	default:
		a.say("%s and %s do not differ by more than these rounds do among themselves: what costs is elsewhere.", capital(fullName(own)), fullName(rival))
	}
	if text := r.share(own, rival); text != "" {
		a.Why = append(a.Why, text)
	}
	for _, absent := range r.Absent {
		a.say("%s cannot be had: %s.", capital(fullName(absent.Name)), strings.TrimSuffix(absent.Reason, "."))
	}
	if r.Rounds < fewRounds {
		a.say("With fewer than %d rounds it is not known how much of a difference is chance.", fewRounds)
	}
	return a
}

func (a *Advice) say(format string, args ...any) { a.Why = append(a.Why, fmt.Sprintf(format, args...)) }

// ownWay is the way that stile.NewClient takes here; "" if that is gRPC.
func (r *Result) ownWay() string {
	own := ""
	for _, w := range r.Ways {
		if w.Name == "shm" || w.Name == "unix" && own == "" {
			own = w.Name
		}
	}
	return own
}

// rivalWay is what a team without Stile uses: a unix socket where there is one.
func (r *Result) rivalWay() string {
	rival := ""
	for _, w := range r.Ways {
		if !w.local() && (rival == "" || w.Name == "grpc-unix") {
			rival = w.Name
		}
	}
	return rival
}

func find(rows []Row, way string) *Row {
	for i := range rows {
		if rows[i].Way == way {
			return &rows[i]
		}
	}
	return nil
}

// gains says by how much own is better than rival over all cells.
func (r *Result) gains(own, rival string) []string {
	var parts []string
	for _, q := range []struct {
		of   func(*Row) *Stat
		text string
	}{
		{func(row *Row) *Stat { return &row.P50 }, "p50 is %s times lower"},
		{func(row *Row) *Stat { return row.CPU }, "a call takes %s times less CPU"},
	} {
		low, high := math.Inf(1), 0.0
		for _, rows := range r.byCell() {
			a, b := q.of(find(rows, own)), q.of(find(rows, rival))
			if a == nil || b == nil {
				continue
			}
			if times, clear := ratio(*a, *b); clear && times > 1 {
				low, high = min(low, times), max(high, times)
			}
		}
		switch {
		case high == 0:
		case measure.Number(low) == measure.Number(high):
			parts = append(parts, fmt.Sprintf(q.text, measure.Number(low)))
		default:
			parts = append(parts, fmt.Sprintf(q.text, measure.Number(low)+" to "+measure.Number(high)))
		}
	}
	return parts
}

// losses says in how many cells own is worse than rival, and by how much at most; ""
// if in none.
func (r *Result) losses(own, rival string) string {
	n, most := 0, 1.0
	for _, rows := range r.byCell() {
		if times, clear := ratio(find(rows, own).P50, find(rows, rival).P50); clear && times < 1 {
			n, most = n+1, max(most, 1/times)
		}
	}
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("in %d of %d cells p50 is higher, up to %s times", n, len(r.byCell()), measure.Number(most))
}

// mean is the geometric mean of how many times lower own's p50 is than rival's.
func (r *Result) mean(own, rival string) float64 {
	sum, n := 0.0, 0
	for _, rows := range r.byCell() {
		if times, _ := ratio(find(rows, own).P50, find(rows, rival).P50); times > 0 {
			sum, n = sum+math.Log(times), n+1
		}
	}
	return math.Exp(sum / float64(max(n, 1)))
}

// share says how much of a call of the user's own goes away; the rest is the
// handler's, and the messages'.
func (r *Result) share(own, rival string) string {
	for _, rows := range r.byCell() {
		a, b := find(rows, own), find(rows, rival)
		if a.cell.size >= 0 || a.cell.pace > 0 || a.Callers != 1 {
			continue
		}
		saved := b.P50.Median - a.P50.Median
		if _, clear := ratio(a.P50, b.P50); !clear {
			continue
		}
		if part := saved / b.P50.Median; part > 0 {
			text := fmt.Sprintf("Of the %s µs that a call takes over %s with one caller, %s (%.0f %%) are saved; what is left is the handler's, the messages' and Stile's.",
				measure.Number(b.P50.Median), fullName(rival), measure.Number(saved), 100*part)
			return text
		}
	}
	return ""
}

// findings lists where another way beats own.
func (r *Result) findings(own string) []string {
	list := []string{}
	for _, rows := range r.byCell() {
		mine := find(rows, own)
		for i := range rows {
			other := &rows[i]
			if other.Way == own {
				continue
			}
			tail, clearTail := ratio(mine.P99, other.P99)
			longer := clearTail && tail > 1 // a lower median at the cost of those who wait is not better
			if times, clear := ratio(mine.P50, other.P50); clear && times < 1 && !longer {
				list = append(list, fmt.Sprintf("%s: p50 over %s is %s times lower than over %s", mine.cell, fullName(other.Way), measure.Number(1/times), fullName(own)))
			}
			if times, clear := ratio(other.CallsPerS, mine.CallsPerS); clear && times < 1 && mine.cell.pace == 0 {
				list = append(list, fmt.Sprintf("%s: %s answers %s times the calls/s of %s", mine.cell, fullName(other.Way), measure.Number(1/times), fullName(own)))
			}
		}
	}
	return list
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// sentences joins the reasons, each once, without the last full stop.
func sentences(absent []Absent) string {
	var list []string
	for _, a := range absent {
		reason := capital(strings.TrimSuffix(a.Reason, "."))
		if len(list) == 0 || list[len(list)-1] != reason {
			list = append(list, reason)
		}
	}
	if len(list) == 0 {
		return "Stile has none on this system"
	}
	return strings.Join(list, ". ")
}
