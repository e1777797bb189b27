package routemap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/stile-ipc/stile/telemetry"
)

// Decisions are how often policies, and deadlines, decided what became of a route's calls. What was not sent is not among its calls.
type Decisions struct {
	Retries   uint64 `json:"retries,omitempty"`   // attempts after the first, which are calls
	Hedges    uint64 `json:"hedges,omitempty"`    // attempts beside one under way, which are calls
	Breaker   uint64 `json:"breaker,omitempty"`   // not sent: the breaker was open
	Limit     uint64 `json:"limit,omitempty"`     // not sent: no place under the limit
	Budget    uint64 `json:"budget,omitempty"`    // retries and hedges not made: too many were
	Admission uint64 `json:"admission,omitempty"` // shed by the server, before the handler began
	CacheHits uint64 `json:"cacheHits,omitempty"` // answered from the cache
	Coalesced uint64 `json:"coalesced,omitempty"` // answered by an equal call
	Fallbacks uint64 `json:"fallbacks,omitempty"` // an old answer stood in for a call that failed
	Late      uint64 `json:"late,omitempty"`      // the deadline had passed before it was sent, or when it arrived
}

// DecisionName is how a decision is told: to people, and in JSON and metrics.
type DecisionName struct{ Words, Key string }

// DecisionNames are those of all decisions, in the order of Counts.
func DecisionNames() []DecisionName {
	all := []DecisionName{
		{Words: "retries"}, {Words: "hedges"}, {Words: "refused by the breaker"}, {Words: "refused by the limit"}, {Words: "no budget to retry"},
		{Words: "shed by the server"}, {Words: "cache hits"}, {Words: "coalesced"}, {Words: "old answers"}, {Words: "late"},
	}
	for i := range all {
		all[i].Key = telemetry.Decision(i).String()
	}
	return all
}

func (d *Decisions) fields() []*uint64 {
	return []*uint64{&d.Retries, &d.Hedges, &d.Breaker, &d.Limit, &d.Budget, &d.Admission, &d.CacheHits, &d.Coalesced, &d.Fallbacks, &d.Late}
}

// Counts are the numbers of all decisions.
func (d Decisions) Counts() []uint64 {
	var all []uint64
	for _, n := range d.fields() {
		all = append(all, *n)
	}
	return all
}

// String tells of those that there are.
func (d Decisions) String() string {
	var parts []string
	for i, n := range d.Counts() {
		if n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, DecisionNames()[i].Words))
		}
	}
	return strings.Join(parts, ", ")
}

// Most is the largest number.
func (d Decisions) Most() uint64 { return slices.Max(d.Counts()) }

func (d *Decisions) merge(o *Decisions) {
	from := o.fields()
	for i, n := range d.fields() {
		*n += *from[i]
	}
}
