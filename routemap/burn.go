package routemap

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// Objective is what a route's calls are to be.
type Objective struct {
	Target float64       `json:"target"` // share that is to be good, between 0 and 1
	Slower time.Duration `json:"slower"` // a call that takes longer is bad, as one that fails; 0: however long it takes. Known to 1/32
}

// Check tells what is wrong with it.
func (o Objective) Check() error {
	switch {
	case !(o.Target > 0 && o.Target < 1):
		return errors.New("the target has to lie between 0 and 1, as 0.999 does: one of 1 leaves no budget")
	case o.Slower < 0:
		return errors.New("calls cannot be slower than a negative time")
	}
	return nil
}

// Alerts of routes that burn their budget.
const (
	Page   = "page"
	Ticket = "ticket"
)

// burnLeast is how many bad calls of the longer time there have to be: where there are few calls, one of them is a large share.
const burnLeast = 10

// burnRules alert when the budget burns so fast in both times.
var burnRules = []struct {
	long, short time.Duration
	burn        float64
	alert       string
}{
	{time.Hour, 5 * time.Minute, 14.4, Page},
	{6 * time.Hour, 30 * time.Minute, 6, Page},
	{72 * time.Hour, 6 * time.Hour, 1, Ticket},
}

// BurnTimes are how far back it is looked at, the shortest first.
func BurnTimes() []time.Duration {
	var all []time.Duration
	for _, r := range burnRules {
		all = append(all, r.long, r.short)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Burn is how fast a route burns its budget: at 1, it is gone when the time that the objective is for is over; at 10, after a tenth of it.
type Burn struct {
	ID string `json:"id"`
	Key
	Alert string     `json:"alert"` // empty: there is none
	Times []BurnTime `json:"times"` // as BurnTimes has them
}

// BurnTime is that of a time until now.
type BurnTime struct {
	Back  time.Duration `json:"ns"`
	Calls uint64        `json:"calls"`
	Bad   uint64        `json:"bad"`
	Burn  float64       `json:"burn"`
}

// Burns tells how fast routes burn their budgets, from a report for each of BurnTimes: those with alerts first, then by the burn of the shortest times.
func Burns(o Objective, reports map[time.Duration]*Report) []Burn {
	byKey := map[Key]map[time.Duration]*Stats{}
	for back, r := range reports {
		for _, route := range r.Routes {
			if byKey[route.Key] == nil {
				byKey[route.Key] = map[time.Duration]*Stats{}
			}
			byKey[route.Key][back] = route.Stats
		}
	}
	all := []Burn{}
	for k, stats := range byKey {
		b := Burn{ID: k.ID(), Key: k}
		at := map[time.Duration]BurnTime{}
		for _, back := range BurnTimes() {
			one := o.burn(back, stats[back])
			at[back] = one
			b.Times = append(b.Times, one)
		}
		for _, r := range burnRules {
			if b.Alert == "" && at[r.long].Burn >= r.burn && at[r.short].Burn >= r.burn && at[r.long].Bad >= burnLeast {
				b.Alert = r.alert
			}
		}
		all = append(all, b)
	}
	slices.SortFunc(all, func(a, b Burn) int {
		return cmp.Or(cmp.Compare(urgency(b.Alert), urgency(a.Alert)),
			slices.CompareFunc(b.Times, a.Times, func(x, y BurnTime) int { return cmp.Compare(x.Burn, y.Burn) }), cmp.Compare(a.Key.String(), b.Key.String()),
			cmp.Compare(a.Transport, b.Transport), cmp.Compare(a.Mode, b.Mode))
	})
	return all
}

func urgency(alert string) int { return slices.Index([]string{"", Ticket, Page}, alert) }

func (o Objective) burn(back time.Duration, s *Stats) BurnTime {
	b := BurnTime{Back: back}
	if s == nil || s.Calls == 0 {
		return b
	}
	b.Calls, b.Bad = s.Calls, s.Failed()
	if o.Slower > 0 {
		slow, failedSlow := s.Duration().Above(int64(o.Slower)), s.Failures.Above(int64(o.Slower))
		b.Bad += slow - min(failedSlow, slow)
	}
	b.Bad = min(b.Bad, b.Calls)
	b.Burn = float64(b.Bad) / float64(b.Calls) / (1 - o.Target)
	return b
}
