package shoptest_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stile-ipc/stile/examples/shop/shoptest"
)

// mails is a shop whose mailer hears of orders by a queue.
type mails struct {
	*shoptest.Shop
	outbox string
}

func startMails(t *testing.T) mails {
	t.Helper()
	data, err := os.MkdirTemp("", "shop") // short, for the path of a unix socket is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(data) })
	outbox := t.TempDir()
	return mails{outbox: outbox, Shop: shoptest.Start(t, shoptest.Config{Bin: bin, Data: t.TempDir(), Args: map[string][]string{
		"orders": {"--data", data},
		"mailer": {"--queue", filepath.Join(data, "queue"), "--outbox", outbox},
	}})}
}

const anOrder = `{"customer":"ada@example.com","items":[{"id":"sku-0002","quantity":1}]}`

// place places an order, or returns "" if nobody says that it did.
func (m mails) place(t *testing.T) string {
	req, err := http.NewRequestWithContext(t.Context(), "POST", m.URL+"/orders", strings.NewReader(anOrder))
	if err != nil {
		t.Error(err)
		return ""
	}
	resp, err := m.Client.Do(req)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var placed order
	if resp.StatusCode != http.StatusCreated || json.NewDecoder(resp.Body).Decode(&placed) != nil {
		return ""
	}
	return placed.ID
}

// sent counts the e-mails by order, whatever their files are called.
func (m mails) sent(t *testing.T) map[string]int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(m.outbox, "*.eml"))
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]int{}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(content), "Subject: Your order ")
		id, rest, _ := strings.Cut(rest, "\r\n")
		if sent[id]++; !strings.HasSuffix(rest, "--\r\n") {
			t.Errorf("%s is not whole", file)
		}
	}
	return sent
}

// await waits until all orders have their e-mail, and fails if one has two.
func (m mails) await(t *testing.T, orders []string) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		sent, missing := m.sent(t), 0
		for _, id := range orders {
			if sent[id] == 0 {
				missing++
			}
		}
		for id, n := range sent {
			if n > 1 {
				t.Fatalf("%s has %d e-mails", id, n)
			}
		}
		if missing == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d of %d orders have no e-mail\norders: %s\nmailer: %s", missing, len(orders), m.Process("orders").Log(), m.Process("mailer").Log())
		}
	}
}

// TestMailerAway: orders are placed while mailer is away, and confirmed when it is back.
func TestMailerAway(t *testing.T) {
	m := startMails(t)
	first := []string{m.place(t)}
	m.await(t, first)
	m.Process("mailer").Terminate(t)
	if err := m.Process("mailer").Wait(t); err != nil {
		t.Errorf("mailer ended with %v\n%s", err, m.Process("mailer").Log())
	}
	orders := first
	for range 20 {
		orders = append(orders, m.place(t))
	}
	if len(m.sent(t)) != 1 {
		t.Error("somebody sends e-mails")
	}
	m.Restart(t, "mailer")
	m.await(t, orders)
	if sent := m.sent(t); len(sent) != len(orders) || sent[""] != 0 {
		t.Errorf("%d e-mails for %d orders", len(sent), len(orders))
	}
	m.Stop(t)
}

// TestMailsKilled kills orders and mailer while orders are placed: who was told that an order is placed gets an e-mail, and nobody two.
func TestMailsKilled(t *testing.T) {
	kills := 6
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	m := startMails(t)
	var placed []string
	var mu sync.Mutex
	var all sync.WaitGroup
	end := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(time.Duration(rand.IntN(20)) * time.Millisecond): // customers come now and then
				}
				if id := m.place(t); id != "" {
					mu.Lock()
					placed = append(placed, id)
					mu.Unlock()
				}
			}
		})
	}
	for range kills {
		name := []string{"orders", "mailer"}[rand.IntN(2)]
		time.Sleep(time.Duration(rand.IntN(700)) * time.Millisecond) // the moment is random
		m.Process(name).Kill()
		m.Restart(t, name)
	}
	mu.Lock()
	before := len(placed)
	mu.Unlock()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) { // orders are placed again
		mu.Lock()
		now := len(placed)
		mu.Unlock()
		if now > before+5 {
			break
		}
		if time.Now().After(limit) {
			t.Error("no more orders are placed")
			break
		}
	}
	close(end)
	all.Wait()
	m.await(t, placed)
	t.Logf("%d kills, %d orders, %d e-mails", kills, len(placed), len(m.sent(t)))
	m.Stop(t)
}
