package queue

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// A line is a connection to an embedded server on which subscriptions get their messages and answer them. It speaks as much of NATS's protocol as
// that takes: nats.go makes a map of each message's headers, copies its subjects, and has two goroutines hand it over, which costs more
// than the server itself. Everything else, and servers elsewhere, are nats.go's.
type line struct {
	dial func() (net.Conn, error)
	log  *slog.Logger
	most int // bytes of a message

	reader, writer sync.WaitGroup

	mu     sync.Mutex
	conn   net.Conn // nil: there is none now
	closed bool
	ended  chan struct{}
	subs   map[uint64]*lineSub
	last   uint64 // sub
	out    []byte // what is to be written
	spare  []byte
	wake   sync.Cond // there is something in out, or the line is closed
}

// lineSub is what a subscription has of it.
type lineSub struct {
	id      uint64
	subject string
	came    func(delivery)                           // a message of a stream
	told    func(subject string, header nats.Header) // anything else
}

// maxControl is how long a line of the protocol may be.
const maxControl = 64 << 10

// maxUnwritten is how much may wait for a server that reads nothing, in bytes.
const maxUnwritten = 1 << 20

// lastWords is how long what is still to be said at the end may take.
const lastWords = time.Second

func newLine(dial func() (net.Conn, error), maxPayload int, log *slog.Logger) (*line, error) {
	l := &line{dial: dial, log: log, most: maxPayload + maxControl, ended: make(chan struct{}), subs: map[uint64]*lineSub{}}
	l.wake.L = &l.mu
	r, err := l.connect()
	if err != nil {
		return nil, err
	}
	l.reader.Go(func() { l.read(r) })
	l.writer.Go(l.write)
	return l, nil
}

// connect makes a connection and says again who subscribes.
func (l *line) connect() (*bufio.Reader, error) {
	c, err := l.dial()
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(guestPatience)) // a host that is stopped takes connections and says nothing
	r := bufio.NewReaderSize(c, maxControl)
	if _, err := r.ReadSlice('\n'); err != nil { // INFO
		c.Close()
		return nil, err
	}
	hello := []byte(`CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1,"lang":"go","name":"stile"}` + "\r\n")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.subs {
		hello = s.hello(hello)
	}
	if _, err := c.Write(hello); err != nil {
		c.Close()
		return nil, err
	}
	if l.closed {
		c.Close()
		return nil, net.ErrClosed
	}
	_ = c.SetDeadline(time.Time{})
	l.conn, l.out = c, l.out[:0]
	return r, nil
}

func (s *lineSub) hello(b []byte) []byte {
	return append(strconv.AppendUint(append(append(append(b, "SUB "...), s.subject...), ' '), s.id, 10), "\r\n"...)
}

// subscribe has messages of a subject told. It is not called from them.
func (l *line) subscribe(subject string, came func(delivery), told func(string, nats.Header)) *lineSub {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last++
	s := &lineSub{l.last, subject, came, told}
	l.subs[s.id] = s
	l.out = s.hello(l.out)
	l.wake.Signal()
	return s
}

func (l *line) unsubscribe(s *lineSub) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.subs, s.id)
	l.out = append(strconv.AppendUint(append(l.out, "UNSUB "...), s.id, 10), "\r\n"...)
	l.wake.Signal()
}

var errAway = errors.New("the server is away")

// publish sends body to a subject.
func (l *line) publish(subject, reply, body []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	if l.conn == nil || len(l.out) > maxUnwritten { // what is not said now is said again, or comes again
		return errAway
	}
	l.out = append(append(l.out, "PUB "...), subject...)
	if len(reply) > 0 {
		l.out = append(append(l.out, ' '), reply...)
	}
	l.out = strconv.AppendInt(append(l.out, ' '), int64(len(body)), 10)
	l.out = append(append(append(l.out, "\r\n"...), body...), "\r\n"...)
	l.wake.Signal()
	return nil
}

// write writes what there is, all at once.
func (l *line) write() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		for len(l.out) == 0 || l.conn == nil {
			if l.closed {
				return
			}
			l.wake.Wait()
		}
		b, c := l.out, l.conn
		l.out, l.spare = l.spare[:0], nil
		l.mu.Unlock()
		_, err := c.Write(b)
		l.mu.Lock()
		l.spare = b[:0]
		if err != nil && l.conn == c {
			l.conn = nil
			c.Close() // who reads makes another one
		}
	}
}

// read takes in what the server sends, on one connection after the other.
func (l *line) read(r *bufio.Reader) {
	for {
		began := time.Now()
		err := l.readAll(r)
		l.mu.Lock()
		if l.conn != nil {
			l.conn.Close()
			l.conn = nil
		}
		closed := l.closed
		l.mu.Unlock()
		if closed {
			return
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
			l.log.Warn("queue: the connection on which messages come", "error", err)
		}
		for wait := time.Since(began) < againAfter; ; wait = true { // at once, unless the last one ended at once
			if wait {
				select {
				case <-time.After(againAfter):
				case <-l.ended:
					return
				}
			}
			if r, err = l.connect(); err == nil {
				break
			}
		}
		l.mu.Lock()
		l.wake.Signal()
		l.mu.Unlock()
	}
}

func (l *line) readAll(r *bufio.Reader) error {
	for {
		b, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		b = bytes.TrimRight(b, "\r\n")
		switch {
		case bytes.HasPrefix(b, []byte("HMSG ")):
			err = l.message(r, b[len("HMSG "):], true)
		case bytes.HasPrefix(b, []byte("MSG ")):
			err = l.message(r, b[len("MSG "):], false)
		case bytes.Equal(b, []byte("PING")):
			l.mu.Lock()
			l.out = append(l.out, "PONG\r\n"...)
			l.wake.Signal()
			l.mu.Unlock()
		case bytes.HasPrefix(b, []byte("-ERR")):
			err = fmt.Errorf("the server says %q", b)
		case bytes.HasPrefix(b, []byte("INFO ")), bytes.Equal(b, []byte("PONG")), bytes.Equal(b, []byte("+OK")):
		default:
			err = fmt.Errorf("the server says %.100q", b)
		}
		if err != nil {
			return err
		}
	}
}

var errLine = errors.New("the server's words are not NATS's protocol")

// message reads SUBJECT ID [REPLY] [HEADER'S BYTES] BYTES, and what follows. An error says that it is not known where the next one begins.
func (l *line) message(r *bufio.Reader, b []byte, hasHeader bool) error {
	var words [5][]byte
	n := 0
	for ; len(b) > 0; n++ {
		if n == len(words) {
			return errLine
		}
		words[n], b, _ = bytes.Cut(b, []byte(" "))
	}
	numbers := 1
	if hasHeader {
		numbers = 2
	}
	if n < 2+numbers || n > 3+numbers {
		return errLine
	}
	size, header := number64(words[n-1]), uint64(0)
	if hasHeader {
		header = number64(words[n-2])
	}
	id := number64(words[1])
	var reply []byte
	if n == 3+numbers {
		reply = words[2]
	}
	if size > uint64(l.most) || header > size {
		return errLine
	}
	subject := words[0]
	buf := make([]byte, len(subject)+len(reply)+int(size)+2)
	at := copy(buf, subject)
	at += copy(buf[at:], reply)
	s, p := len(subject), len(subject)+len(reply)
	if _, err := io.ReadFull(r, buf[at:]); err != nil {
		return err
	}
	h, end := p+int(header), p+int(size)
	l.mu.Lock()
	sub := l.subs[id]
	l.mu.Unlock()
	if sub == nil {
		return nil
	}
	if p == s {
		head, err := nats.DecodeHeadersMsg(buf[p:h])
		if err != nil {
			l.log.Error("queue: the server says something that cannot be read", "subject", string(buf[:s]), "error", err)
			return nil
		}
		sub.told(string(buf[:s]), head)
		return nil
	}
	d := delivery{Subject: buf[:s:s], Reply: buf[s:p:p], Header: Header{raw: buf[p:h:h]}, Data: buf[h:end:end]}
	if err := d.readReply(); err != nil {
		l.log.Error("queue: a message that is not JetStream's", "subject", string(d.Subject), "error", err)
		return nil
	}
	sub.came(d)
	return nil
}

// number64 reads a number of decimal digits; any other word is as large as can be, which is refused.
func number64(b []byte) uint64 {
	if len(b) == 0 || len(b) > 19 {
		return 1<<64 - 1
	}
	n := uint64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 1<<64 - 1
		}
		n = n*10 + uint64(c-'0')
	}
	return n
}

// close ends the line. A nil line has ended.
func (l *line) close() {
	if l == nil {
		return
	}
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.ended)
		if l.conn != nil {
			_ = l.conn.SetWriteDeadline(time.Now().Add(lastWords)) // a connection that has none is closed
		}
		l.wake.Broadcast()
	}
	l.mu.Unlock()
	l.writer.Wait()
	l.mu.Lock()
	if l.conn != nil {
		l.conn.Close()
	}
	l.mu.Unlock()
	l.reader.Wait()
}
