package values

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

// say is what a body of these fields says.
func say(fields ...any) *Body { return Scan(trace1, message(fields...)) }

func told(all []Told) (text []string) {
	for _, one := range all {
		text = append(text, fmt.Sprintf("%d looked=%v uses=%v used=%v", one.Span, one.Looked, one.Uses, one.Used))
	}
	return text
}

// TestCalls: an order that reserves, asks for a price, and confirms what it costs.
func TestCalls(t *testing.T) {
	c := NewCalls(say("ada@example.com", message("sku-0002", 2)))
	reserve := c.Begin(1, say("order-9f3a", message("sku-0002", 2)))
	reserve.End(say())
	quote := c.Begin(2, say(message("sku-0002", 2)))
	quote.End(say(message("sku-0002", 2, 995, 1990), 1990))
	mail := c.Begin(3, say("ada@example.com", "order-9f3a", 1990))
	mail.End(say("4711@shop.example"))
	want := []string{"1 looked=true uses=[] used=false", "2 looked=true uses=[2] used=true", "3 looked=true uses=[2] used=false"}
	want[1] = "2 looked=true uses=[] used=true"
	if got := told(c.End(say(message("order-9f3a", "ada@example.com", 1990)))); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestCallsKnown: what is used, what is not, and what cannot be known.
func TestCallsKnown(t *testing.T) {
	text := say("a1b2c3")
	for name, c := range map[string]struct {
		do   func(c *Calls)
		want []string // of calls that have ended
	}{
		"the handler had it before": {func(c *Calls) {
			c.Begin(1, say("x")).End(say("asked"))
			c.Begin(2, say("asked")).End(say())
		}, []string{"1 looked=true uses=[] used=false", "2 looked=true uses=[] used=false"}},
		"the call had it before": {func(c *Calls) {
			c.Begin(1, text).End(text)
			c.Begin(2, text).End(say())
		}, []string{"1 looked=true uses=[] used=false", "2 looked=true uses=[] used=false"}},
		"it was made before the answer": {func(c *Calls) {
			first := c.Begin(1, say("x"))
			c.Begin(2, text).End(say())
			first.End(text)
		}, []string{"1 looked=true uses=[] used=false", "2 looked=true uses=[] used=false"}},
		"the next but one": {func(c *Calls) {
			c.Begin(1, say("x")).End(text)
			c.Begin(2, say("y")).End(say("z9"))
			c.Begin(3, say(message("a1b2c3"))).End(say())
		}, []string{"1 looked=true uses=[] used=true", "2 looked=true uses=[] used=false", "3 looked=true uses=[1] used=false"}},
		"the handler answers it": {func(c *Calls) { c.Begin(1, say("x")).End(say("answered")) }, []string{"1 looked=true uses=[] used=true"}},
		"it failed":              {func(c *Calls) { c.Begin(1, say("x")) }, []string{"1 looked=false uses=[] used=false"}},
		"somebody else asked":    {func(c *Calls) { c.Begin(1, say("x")).End(text); c.Unseen() }, []string{"1 looked=true uses=[] used=true"}},
		"not all was looked at":  {func(c *Calls) { c.Begin(1, Scan(trace1, []byte("{}"))).End(text) }, []string{"1 looked=false uses=[] used=true"}},
		"the answer neither":     {func(c *Calls) { c.Begin(1, text).End(Scan(trace1, []byte("{}"))) }, []string{"1 looked=false uses=[] used=false"}},
		"answered twice":         {func(c *Calls) { one := c.Begin(1, say("x")); one.End(say()); one.End(say("answered")) }, []string{"1 looked=true uses=[] used=false"}},
	} {
		calls := NewCalls(say("asked"))
		c.do(calls)
		if got := told(calls.End(say("answered"))); !slices.Equal(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
		if calls.Begin(9, text) != nil {
			t.Errorf("%s: a call after the handler", name)
		}
	}
}

// TestCallsBlind: what a handler that answers nothing, or nothing that can be read, has used is not known.
func TestCallsBlind(t *testing.T) {
	for name, answer := range map[string]*Body{"empty": say(), "yes": say(1), "no protobuf": Scan(trace1, []byte("{}"))} {
		c := NewCalls(say("asked"))
		c.Begin(1, say("x")).End(say("y-1"))
		if got := told(c.End(answer)); !slices.Equal(got, []string{"1 looked=true uses=[] used=true"}) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// TestCallsBounds: of a handler with more calls or values than are remembered, nothing is said to be unused.
func TestCallsBounds(t *testing.T) {
	var many []any
	for i := range 2000 {
		many = append(many, 1000+i)
	}
	for name, body := range map[string]*Body{"calls": say(5), "values": say(many...)} {
		c := NewCalls(say())
		for i := range 100 {
			c.Begin(uint64(i+1), body).End(say(fmt.Sprint("answer-", i)))
		}
		all := c.End(say())
		if len(all) > maxCalls || len(all) < 5 || slices.ContainsFunc(all, func(one Told) bool { return !one.Used }) {
			t.Errorf("%s: %d calls, %+v", name, len(all), all[0])
		}
	}
	c := NewCalls(say())
	for i := range 20 {
		c.Begin(uint64(i+1), say()).End(say("the-same-1"))
	}
	last := c.Begin(50, say("the-same-1"))
	last.End(say())
	if all := c.End(say()); len(all[20].Uses) != MaxUses || all[20].Uses[MaxUses-1] != 20 {
		t.Errorf("%+v", all[20])
	}
}

// TestCallsAtOnce: calls that a handler makes at once are kept apart.
func TestCallsAtOnce(t *testing.T) {
	c := NewCalls(say())
	var all sync.WaitGroup
	for i := range 50 {
		all.Go(func() { c.Begin(uint64(i+1), say(fmt.Sprint("ask-", i))).End(say(fmt.Sprint("answer-", i))) })
	}
	all.Wait()
	for _, one := range c.End(say("answer-7")) {
		if !one.Looked || len(one.Uses) > 0 || one.Used != (one.Span == 8) {
			t.Errorf("%+v", one)
		}
	}
}
