package databases

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stile-ipc/stile/queue"
)

// TestInbox: what is done is remembered together with its effect, and what fails is neither.
func TestInbox(t *testing.T) {
	each(t, func(t *testing.T, b base) {
		db := b.open(t)
		execute(t, db, "CREATE TABLE effects (id VARCHAR(100))")
		inbox, err := queue.NewSQLInbox(t.Context(), db, b.dialect, "")
		if err != nil {
			t.Fatal(err)
		}
		broken := errors.New("broken")
		do := func(key queue.InboxKey, fails error) error {
			return inbox.Once(t.Context(), key, func(ctx context.Context) error {
				execute(t, queue.Tx(ctx), "INSERT INTO effects (id) VALUES ('"+key.ID+"')")
				return fails
			})
		}
		one := queue.InboxKey{Topic: "orders", Group: "billing", ID: "one"}
		other := queue.InboxKey{Topic: "orders", Group: "export", ID: "one"}
		if err := do(one, broken); !errors.Is(err, broken) {
			t.Error(err)
		}
		for range 3 {
			if err := errors.Join(do(one, nil), do(other, nil)); err != nil {
				t.Fatal(err)
			}
		}
		var n int
		if err := db.QueryRow("SELECT count(*) FROM effects").Scan(&n); err != nil || n != 2 {
			t.Errorf("%d effects, want 2 (%v)", n, err)
		}
		if n, err := inbox.Forget(t.Context(), time.Hour); err != nil || n != 0 {
			t.Errorf("forgotten: %d, %v", n, err)
		}
		if n, err := inbox.Forget(t.Context(), -time.Hour); err != nil || n != 2 {
			t.Errorf("forgotten: %d, %v", n, err)
		}
	})
}
