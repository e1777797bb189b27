package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv("BILLING_TEST_RUN") != "" { // a process that may be killed
		main()
		return
	}
	os.Exit(m.Run())
}

// TestOnce kills consumer, broker and publisher, which are one process, again and again: at the end each invoice is charged, and none twice.
func TestOnce(t *testing.T) {
	invoices, kills := 6000, 6
	if n, err := strconv.Atoi(os.Getenv("QUEUE_MESSAGES")); err == nil {
		invoices = n
	}
	if n, err := strconv.Atoi(os.Getenv("QUEUE_KILLS")); err == nil {
		kills = n
	}
	dir := t.TempDir()
	start := func() (*exec.Cmd, *strings.Builder) {
		cmd := exec.Command(os.Args[0], "--data", dir, "--invoices", strconv.Itoa(invoices))
		cmd.Env = append(os.Environ(), "BILLING_TEST_RUN=1")
		out := new(strings.Builder)
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, out
	}
	before := 0
	for killed := 0; killed < kills; killed++ {
		cmd, out := start()
		before = chargesAbove(t, dir, max(before, invoices*killed/(kills+1))) // it has done something, and the kills are of all times
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Fatalf("all was done before kill %d of %d: %s", killed+1, kills, out)
		}
	}
	cmd, out := start()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if want := fmt.Sprintf("%d invoices, %d charged, %d charges\n", invoices, invoices, invoices); out.String() != want {
		t.Errorf("%s, want %s", out, want)
	}
	t.Logf("%d kills, %d charges before the last: %s", kills, before, out)
}

// chargesAbove waits until there are more charges than n, and returns how many.
func chargesAbove(t *testing.T, dir string, n int) int {
	t.Helper()
	db, err := openDB(t.Context(), dir+"/billing.db")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		var now int
		if err := db.QueryRow("SELECT count(*) FROM charges").Scan(&now); err != nil {
			t.Fatal(err)
		}
		if now > n {
			return now
		}
	}
	t.Fatalf("no more than %d charges within a minute", n)
	return 0
}
