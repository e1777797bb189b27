package queue_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/policy"
	"github.com/stile-ipc/stile/queue"
)

// TestPolicyFromKey: a policy in a key is obeyed by all who follow it, a bad one by nobody.
func TestPolicyFromKey(t *testing.T) {
	q, err := queue.Open(t.Context(), queue.Config{Dir: t.TempDir(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	kv, err := q.KeyValue(t.Context(), "policies")
	if err != nil {
		t.Fatal(err)
	}
	put := func(text string) {
		t.Helper()
		if _, err := kv.PutString(t.Context(), "shop", text); err != nil {
			t.Fatal(err)
		}
	}
	follow := func() (*policy.Policy, error) {
		feed := queue.NewKeyFeed(kv, "shop")
		t.Cleanup(func() {
			if err := feed.Close(); err != nil {
				t.Error(err)
			}
		})
		return policy.Follow(t.Context(), feed, policy.WithLogger(slog.New(slog.DiscardHandler)), policy.WithLastGoodDir(t.TempDir()))
	}
	if _, err := follow(); err == nil || !strings.Contains(err.Error(), "nats://kv/policies/shop is deleted or empty") {
		t.Errorf("no key: %v", err)
	}
	put(`x-stile: {version: "1"}`)
	var followers []*policy.Policy
	for range 3 {
		p, err := follow()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		followers = append(followers, p)
	}
	all := func(version, fault string) {
		t.Helper()
		for _, p := range followers {
			for begin := time.Now(); ; time.Sleep(time.Millisecond) {
				st := p.Status()
				if st.Version == version && (st.Error == "") == (fault == "") && strings.Contains(st.Error, fault) {
					break
				}
				if time.Since(begin) > 20*time.Second {
					t.Fatalf("status %+v, want version %s and fault %q", st, version, fault)
				}
			}
		}
	}
	all("1", "")
	put(`x-stile: {version: "2"}`)
	all("2", "")
	put(`x-stile: {versoin: "3"}`)
	all("2", "did you mean version?")
	put(`x-stile: {version: "4"}`)
	all("4", "")
	if err := kv.Delete(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	all("4", "deleted")
	put(`x-stile: {version: "5"}`)
	all("5", "")
}
