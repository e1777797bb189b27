package queue

import (
	"fmt"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestPublishAllAtOnce: more callers publish together than a stream takes at once, and none is refused.
func TestPublishAllAtOnce(t *testing.T) {
	t.Parallel()
	const callers, together = 150, 100
	q := open(t, t.TempDir())
	top := topic(t, q, "orders", Durable(Buffered))
	ms := make([]text, together)
	for i := range ms {
		ms[i] = wrapperspb.String("x")
	}
	var all sync.WaitGroup
	for p := range callers {
		all.Go(func() {
			if _, err := top.PublishAll(t.Context(), ms, ID(fmt.Sprint("p", p))); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s, err := q.js.Stream(t.Context(), "orders")
	if err != nil || s.CachedInfo().State.Msgs != callers*together {
		t.Errorf("%+v, %v", s, err)
	}
}
