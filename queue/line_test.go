package queue

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

// TestLineOddWords: a message that cannot be read is one message; those behind it come on the same connection. Words after which it is not
// known where the next message begins end it, and another one is made, on which the subscription is said again.
func TestLineOddWords(t *testing.T) {
	frame := func(id, reply, body string) string {
		return fmt.Sprintf("MSG s %s %s%d\r\n%s\r\n", id, reply, len(body), body)
	}
	good := func(body string) string { return frame("1", "$JS.ACK.S.C.1.7.7.1.0 ", body) }
	status := "NATS/1.0 408 Request Timeout\r\n\r\n"
	connections := []string{
		frame("1", "elsewhere ", "odd") + good("a") +
			"HMSG t 1 3 3\r\nodd\r\n" + good("b") +
			frame("99", "", "of no subscription") + good("c") +
			fmt.Sprintf("HMSG t 1 %d %[1]d\r\n%s\r\n", len(status), status) + good("d") +
			"MSG s 1 $JS.ACK.S.C.1.7.7.1.0 99999999999\r\n",
		good("e") + "HMSG s 1 9 3\r\nodd\r\n",
		good("f") + "what?\r\n",
		good("g") + "MSG s 1 two three four five 1\r\n",
		good("h"),
	}
	servers := make(chan string, len(connections))
	for _, c := range connections {
		servers <- c
	}
	said := make(chan string, len(connections))
	dial := func() (net.Conn, error) {
		client, server := net.Pipe()
		words := <-servers
		go func() {
			defer server.Close()
			fmt.Fprint(server, "INFO {}\r\n")
			r := bufio.NewReader(server)
			for {
				s, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if strings.HasPrefix(s, "SUB ") {
					break
				}
			}
			go func() { fmt.Fprint(server, words) }()
			for {
				s, err := r.ReadString('\n')
				if err != nil {
					return
				}
				said <- s
			}
		}()
		return client, nil
	}
	l, err := newLine(dial, 1000, quiet())
	if err != nil {
		t.Fatal(err)
	}
	came, told := make(chan string, 100), make(chan string, 100)
	l.subscribe("s", func(d delivery) { came <- fmt.Sprint(string(d.Data), d.seq) }, func(_ string, h nats.Header) { told <- h.Get("Status") })
	for _, want := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if got := next(t, came); got != want+"7" {
			t.Errorf("%s came, want %s", got, want)
		}
	}
	if got := next(t, told); got != "408" || len(told) != 0 {
		t.Errorf("told %s, and %d more", got, len(told))
	}
	if err := l.publish([]byte("x"), nil, []byte("y")); err != nil {
		t.Error(err)
	}
	if got := next(t, said); got != "PUB x 1\r\n" {
		t.Errorf("the server was told %q", got)
	}
	l.close()
}
