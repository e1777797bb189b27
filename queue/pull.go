package queue

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
)

// Messages are asked for by requests of our own instead of package jetstream's, which hands each message over through two channels.

const (
	// pullLimit is how long the server keeps a request for messages, and Drain may have to wait for its end.
	pullLimit = time.Second
	// pullPatience is how much later the server must have said that it has ended.
	pullPatience = time.Second
	// pullBytes is how much one request may bring, in bytes, if no message is larger.
	pullBytes = 16 << 20
	// maxPullWait is the longest wait after a request that failed.
	maxPullWait = 5 * time.Second
)

// headerPending is how many messages a request that has ended has not brought.
const headerPending = "Nats-Pending-Messages"

// puller asks for a subscription's messages.
type puller struct {
	s     *Subscription
	inbox string        // what answers' subjects begin with; how many messages were asked for follows, and the request's number
	stop  func()        // ends what comes
	quiet chan struct{} // closed: nothing more is asked for, and nothing is to come

	// The subscription's mu guards what follows.
	asked   int         // messages that are to come, or the word that they will not
	last    uint64      // request
	ended   bool        // nothing more is asked for
	brought bool        // a message has come since something was last called
	vain    int         // requests that failed, one after the other
	late    *time.Timer // when it fires, requests were lost, or one that failed is made again
}

// newPuller begins to ask.
func newPuller(s *Subscription) (*puller, error) {
	p := &puller{s: s, inbox: s.q.nc.NewRespInbox() + ".", quiet: make(chan struct{})}
	p.late = time.AfterFunc(time.Hour, p.again)
	p.late.Stop()
	l, err := s.q.messages()
	if err != nil {
		return nil, err
	}
	if l != nil {
		sub := l.subscribe(p.inbox+"*", s.take, p.told)
		s.say, p.stop = l.publish, func() { l.unsubscribe(sub) }
		return p, nil
	}
	s.say = func(subject, reply, body []byte) error {
		return s.q.nc.PublishMsg(&nats.Msg{Subject: string(subject), Reply: string(reply), Data: body})
	}
	sub, err := s.q.nc.Subscribe(p.inbox+"*", p.came)
	if err != nil {
		return nil, err
	}
	p.stop = func() { _ = sub.Unsubscribe() } // or the connection is closed
	return p, sub.SetPendingLimits(-1, -1)    // what is asked for is the limit
}

// moreLocked decides how many messages to ask for now; the caller does so, with ask, when it no longer has the lock.
func (p *puller) moreLocked() int {
	if p.ended || p.vain > 0 {
		return 0
	}
	room := p.s.capacity()
	n := room - len(p.s.held) - p.asked
	hungry := p.asked == 0 && p.s.waitingLocked() <= room/4
	if n <= 0 || n < room/2 && !hungry {
		return 0
	}
	p.askedLocked(n)
	return n
}

func (p *puller) askedLocked(n int) {
	p.asked += n
	p.late.Reset(pullLimit + pullPatience)
}

// ask asks for n messages.
func (p *puller) ask(n int) {
	if n == 0 {
		return
	}
	if p.s.q.dial == nil && !p.s.q.nc.IsConnected() { // nats.go would keep the request, and each later one, until it is
		p.over(n, errAway)
		return
	}
	most := max(pullBytes, 2*int(p.s.q.nc.MaxPayload()))
	p.s.mu.Lock()
	p.last++
	reply := fmt.Appendf(nil, "%s%d-%d", p.inbox, n, p.last)
	p.s.mu.Unlock()
	err := p.s.say([]byte("$JS.API.CONSUMER.MSG.NEXT."+p.s.stream+"."+p.s.cons.CachedInfo().Name), reply,
		fmt.Appendf(nil, `{"batch":%d,"max_bytes":%d,"expires":%d}`, n, most, pullLimit))
	if err != nil {
		p.over(n, err)
	}
}

// came takes in what a server elsewhere sends.
func (p *puller) came(m *nats.Msg) {
	if m.Reply == "" {
		p.told(m.Subject, m.Header)
		return
	}
	d := delivery{Subject: []byte(m.Subject), Reply: []byte(m.Reply), Header: Header{parsed: m.Header}, Data: m.Data}
	if err := d.readReply(); err != nil {
		p.s.q.log.Error("queue: a message that is not JetStream's", "stream", p.s.stream, "group", p.s.group, "error", err)
		return
	}
	p.s.take(d)
}

// told heeds what the server says of a request.
func (p *puller) told(subject string, h nats.Header) {
	digits, _, _ := strings.Cut(strings.TrimPrefix(subject, p.inbox), "-")
	n, err := strconv.Atoi(digits)
	if err != nil {
		return // it is nothing that we asked for
	}
	if left, err := strconv.Atoi(h.Get(headerPending)); err == nil {
		n = min(max(left, 0), n)
	}
	status, text := h.Get("Status"), h.Get("Description")
	switch {
	case status == "404", status == "408", text == "Batch Completed":
		p.over(n, nil)
	case text == "Message Size Exceeds MaxBytes" && p.something():
		p.over(n, nil)
	case status == "503":
		p.over(n, noResponders)
	default:
		p.over(n, errors.New(status+" "+text))
	}
}

// something tells whether any message has come since it was last asked: if not, one is larger than any request may bring.
func (p *puller) something() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	brought := p.brought
	p.brought = false
	return brought
}

// over takes in that n messages which were asked for will not come. After an error it is asked again in a while.
func (p *puller) over(n int, err error) {
	p.s.mu.Lock()
	p.asked = max(p.asked-n, 0)
	if err == nil {
		p.vain = 0
	} else if p.vain++; p.vain == 1 {
		p.s.q.log.Warn("queue: no messages can be had; trying again", "stream", p.s.stream, "group", p.s.group, "error", err)
	}
	if p.asked == 0 && p.vain > 0 {
		p.late.Reset(min(time.Duration(p.vain)*100*time.Millisecond, maxPullWait))
	}
	more := p.moreLocked()
	p.restLocked()
	p.s.mu.Unlock()
	p.ask(more)
}

// again asks although requests have failed, or were lost with a connection: their end is not told.
func (p *puller) again() {
	p.s.mu.Lock()
	p.asked = 0
	n := 0
	if n = p.s.capacity() - len(p.s.held); !p.ended && n > 0 {
		p.askedLocked(n)
	} else {
		p.vain, n = 0, 0 // who lets go of a message asks
	}
	p.restLocked()
	p.s.mu.Unlock()
	p.ask(n)
}

// end asks for nothing more, and returns when nothing is to come.
func (p *puller) end() {
	p.s.mu.Lock()
	p.ended = true
	p.restLocked()
	p.s.mu.Unlock()
	<-p.quiet
	p.stop()
	p.late.Stop()
}

func (p *puller) restLocked() {
	if p.ended && p.asked == 0 {
		select {
		case <-p.quiet:
		default:
			close(p.quiet)
		}
	}
}

// delivery is a message that came.
type delivery struct {
	Subject  []byte
	Reply    []byte // where the server is told of it
	Header   Header
	Data     []byte
	seq      uint64 // in the stream
	times    int    // it was delivered, this one included
	stored   time.Time
	tries    tries // before this delivery
	before   int   // attempts before it was delayed for its group
	doubtful bool  // a handler may have begun with it before
}

var ackPrefix = []byte("$JS.ACK.")

// readReply reads what the server says of a message in the subject of its answer, which ends in .TIMES.SEQUENCE.CONSUMER'S.TIME.PENDING, and
// since 2.11 may go on with a token.
func (d *delivery) readReply() error {
	subject, ok := bytes.CutPrefix(d.Reply, ackPrefix)
	parts := bytes.Count(subject, dot) + 1
	skip := 2 // stream and consumer
	if parts > 7 {
		skip = 4 // and before them domain and account
	}
	for range skip {
		_, subject, _ = bytes.Cut(subject, dot)
	}
	var n [4]uint64
	for i := range n {
		var word []byte
		word, subject, _ = bytes.Cut(subject, dot)
		if n[i] = number64(word); n[i] == 1<<64-1 {
			ok = false
		}
	}
	if !ok || parts != 7 && parts < 9 {
		return fmt.Errorf("its answer is to go to %q", d.Reply)
	}
	d.seq, d.times, d.stored = n[1], int(n[0]), time.Unix(0, int64(n[3]))
	return nil
}

var dot = []byte(".")

// What the server is told of a message.
var (
	wordAck        = []byte("+ACK")
	wordNak        = []byte("-NAK")
	wordInProgress = []byte("+WPI")
)

func (s *Subscription) ack(d delivery) error { return s.say(d.Reply, nil, wordAck) }

func (s *Subscription) nak(d delivery, wait time.Duration) error {
	if wait <= 0 {
		return s.say(d.Reply, nil, wordNak)
	}
	return s.say(d.Reply, nil, fmt.Appendf(nil, `-NAK {"delay":%d}`, wait))
}
