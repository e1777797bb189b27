package clustertest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"github.com/stile-ipc/stile/queue"
)

// member is one of the processes of a group that is ordered.
type member struct {
	Name string
	URL  string
	DB   string // in which they have their effects
}

// keyOf is the key of a message "key number".
func keyOf(m text) string { key, _, _ := strings.Cut(m.GetValue(), " "); return key }

// handle is a member's process. It ends when its parent does.
func handle(spec string) error {
	var m member
	if err := json.Unmarshal([]byte(spec), &m); err != nil {
		return err
	}
	ctx := context.Background()
	_, inbox, err := openDB(ctx, m.DB)
	if err != nil {
		return err
	}
	q, err := open(ctx, m.URL)
	if err != nil {
		return err
	}
	top, err := queue.NewTopic[text](q, "orders", queue.KeyBy(keyOf))
	if err != nil {
		return err
	}
	done := effect(m.Name)
	_, err = top.Subscribe(ctx, "billing", func(ctx context.Context, m *queue.Msg[text]) error {
		if err := done(ctx, m); err != nil {
			return err
		}
		if rand.IntN(100) == 0 {
			return errors.New("not this time")
		}
		return nil
	}, queue.Ordered(), queue.Once(inbox), queue.Retry(1000, time.Microsecond, 10*time.Millisecond))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
