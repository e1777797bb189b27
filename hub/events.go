package hub

import (
	"fmt"
	"net/http"
	"strconv"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/routemap"
)

// Events is what GET /api/v1/events answers: what processes have told of, the newest first.
type Events struct {
	Window routemap.Window `json:"window"`
	Events []store.Event   `json:"events"`
}

// Bounds of how many events are told at once.
const (
	DefaultEvents = 200
	MaxEvents     = 5000
)

// events reads from, to, service, kind and limit.
func (h *Hub) events(r *http.Request) (any, error) {
	from, to, err := h.between(r, "service", "kind", "limit")
	if err != nil {
		return nil, err
	}
	limit := DefaultEvents
	q := r.URL.Query()
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > MaxEvents {
			return nil, badQuestion{fmt.Errorf("limit: %q is no number from 1 to %d", text, MaxEvents)}
		}
	}
	all, err := h.store.Events(r.Context(), from, to, q.Get("service"), q.Get("kind"), limit)
	return Events{routemap.Window{From: from, To: to}, all}, err
}
