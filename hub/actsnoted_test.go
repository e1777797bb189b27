package hub

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stile-ipc/stile/hub/internal/store"
	"github.com/stile-ipc/stile/queue"
)

// noted is what a hub has kept of what was done with the group billing, the oldest first.
func noted(t *testing.T, s *store.Store) (all []string) {
	t.Helper()
	events, err := s.Events(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), hubService, "", 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range slices.Backward(events) {
		if e.Subject != "orders billing" {
			t.Errorf("%+v", e)
		}
		all = append(all, e.Kind+": "+e.Detail)
	}
	return all
}

// actsEnv has TestActsKilled be a hub that is killed at some moment, in a folder.
const actsEnv = "STILE_TEST_ACTS"

// TestActsKilled: who wants what done is on disk before it is begun, and what came of it before it is answered: kill -9 takes none of it away.
func TestActsKilled(t *testing.T) {
	if when, dir, child := strings.Cut(os.Getenv(actsEnv), ","); child {
		actUntilKilled(t, when, dir)
	}
	for when, want := range map[string]struct {
		noted []string
		left  uint64
	}{
		"within":     {[]string{"discard begun: all up to sequence 2 by alice"}, 1},
		"afterwards": {[]string{"discard begun: all up to sequence 2 by alice", "dead letters discarded: 2 by alice"}, 0},
	} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^TestActsKilled$")
		cmd.Env = append(os.Environ(), actsEnv+"="+when+","+dir)
		if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), "FAIL") {
			t.Fatalf("%s: it was not killed: %v\n%s", when, err, out)
		}
		s, err := store.Open(t.Context(), filepath.Join(dir, "hub"), DefaultMaxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := noted(t, s); !slices.Equal(got, want.noted) {
			t.Errorf("killed %s: %q, want %q", when, got, want.noted)
		}
		q := openQueue(t, filepath.Join(dir, "q"))
		if st, err := q.GroupStats(t.Context(), "orders", "billing"); err != nil || st.Dead != want.left {
			t.Errorf("killed %s: %+v, %v", when, st, err)
		}
		if err := errors.Join(q.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
}

// actUntilKilled has alice discard two letters, and kills the process after the first, or when she has the answer.
func actUntilKilled(t *testing.T, when, dir string) {
	kill := func() {
		self, err := os.FindProcess(os.Getpid())
		if err == nil {
			err = self.Kill()
		}
		t.Fatal("it lives: ", err)
	}
	folder := filepath.Join(dir, "q")
	d := newDying(t, openQueue(t, folder), folder, 2)
	h := openHub(t, Config{Dir: filepath.Join(dir, "hub")})
	all := discards
	if when == "within" {
		all.do = func(dead *queue.DeadLetters, ctx context.Context, keep func(*queue.DeadLetter) bool) (int, error) {
			met := 0
			return discards.do(dead, ctx, func(l *queue.DeadLetter) bool {
				if met++; met == 2 {
					kill()
				}
				return keep(l)
			})
		}
	}
	body := fmt.Sprintf(`{"queue": %q, "all": true, "upTo": 2}`, d.tell(h, nil))
	r := httptest.NewRequestWithContext(context.WithValue(t.Context(), byWhom{}, "alice"), http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", typeJSON)
	h.acting(all).ServeHTTP(&killing{kill}, r)
	t.Fatal("it was not answered")
}

// killing is told an answer, and kills the process.
type killing struct{ kill func() }

func (k *killing) Header() http.Header       { return http.Header{} }
func (k *killing) WriteHeader(int)           { k.kill() }
func (k *killing) Write([]byte) (int, error) { k.kill(); return 0, nil }

// TestActsUnnoted: nothing is done while it cannot be noted who does it; what was done, and could not be noted, is told, and noted as soon as it can be.
func TestActsUnnoted(t *testing.T) {
	dir := t.TempDir()
	d := newDying(t, openQueue(t, dir), dir, 2)
	defer d.close()
	h := openHub(t, Config{})
	id := d.tell(h, nil)
	db, err := sql.Open("sqlite", filepath.Join(h.cfg.Dir, "hub.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	refuse := func(kind string) (again func()) {
		t.Helper()
		if _, err := db.Exec("CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.kind = '" + kind + "' BEGIN SELECT RAISE(ABORT, 'disk full'); END"); err != nil {
			t.Fatal(err)
		}
		return func() {
			t.Helper()
			if _, err := db.Exec("DROP TRIGGER full"); err != nil {
				t.Fatal(err)
			}
		}
	}
	again := refuse(discards.begun)
	if r := act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: 2}); r.code != http.StatusInternalServerError || !strings.Contains(string(r.body), "nothing was done") || !strings.Contains(string(r.body), "disk full") {
		t.Errorf("%d %s", r.code, r.body)
	}
	d.dead(2)
	again()
	again = refuse(discards.done)
	if got := decode[QueueActed](t, act(t, h, "discard", QueueAct{Queue: id, All: true, UpTo: 2})); got.Done != 2 || got.Left != 0 || !strings.Contains(got.Error, "not noted on disk yet") {
		t.Errorf("%+v", got)
	}
	again()
	h = reopen(t, h)
	defer closeHub(t, h)
	who := fmt.Sprint(" by uid ", os.Getuid())
	if got, want := noted(t, h.store), []string{"discard begun: all up to sequence 2" + who, "dead letters discarded: 2" + who}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
