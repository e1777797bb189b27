package routemap

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/stile-ipc/stile/internal/packed"
)

// QueueKey names a group of a topic. Without a group nobody has subscribed.
type QueueKey struct {
	Topic   string `json:"topic"`
	Created int64  `json:"created"` // ns since 1970: of topics of one name, which one it is
	Group   string `json:"group"`
}

// ID names it to programs: 16 hex digits, always the same for a key.
func (k QueueKey) ID() string {
	text := packed.AppendString(packed.AppendString(nil, k.Topic), k.Group)
	sum := sha256.Sum256(binary.AppendVarint(text, k.Created))
	return hex.EncodeToString(sum[:8])
}

// QueueStats is how a group of a topic did over some windows. What is of the topic is said of each of its groups.
type QueueStats struct {
	Where   string `json:"where"`   // unix: and a folder, or URLs
	Host    string `json:"host"`    // of who told
	Windows uint64 `json:"windows"` // in which it was told of
	At      int64  `json:"at"`      // ns since 1970, of what follows

	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
	MaxBytes uint64 `json:"maxBytes"` // that the topic may have
	Delayed  uint64 `json:"delayed"`  // messages that are not due yet
	Lag      uint64 `json:"lag"`      // messages never delivered to the group
	InFlight uint64 `json:"inFlight"` // delivered and not done with
	Retrying uint64 `json:"retrying"`
	Dead     uint64 `json:"dead"`
	Oldest   int64  `json:"oldest"` // ns, of the oldest message that is not done with

	MostLag    uint64 `json:"mostLag"` // of any window, as the next two
	MostOldest int64  `json:"mostOldest"`
	MostBytes  uint64 `json:"mostBytes"`

	Measured  int64  `json:"measured"`  // ns in which the next three were seen
	Published uint64 `json:"published"` // messages that the topic got
	Handled   uint64 `json:"handled"`   // that the group was done with, or that were too old
	Grown     int64  `json:"grown"`     // bytes that the topic has more

	Blocked int64  `json:"blocked"` // ns that senders waited for room
	Told    int64  `json:"told"`    // ns of the windows in which they could have
	Refused uint64 `json:"refused"` // messages for which there was no room

	Full    uint64 `json:"full"`    // windows in which the topic was as full as backpressure has it
	Head    uint64 `json:"head"`    // windows at the beginning, all with more that came than was done with
	Tail    uint64 `json:"tail"`    // at the end
	Growing uint64 `json:"growing"` // the most running
}

// What makes backpressure.
const (
	blockedLeast   = 0.01 // of the time
	fullFrom       = 0.8  // of what a topic may have
	fullLeast      = 0.05 // of the windows
	growingWindows = 3
	growingBy      = 0.01 // of what comes
	growingLeast   = 10   // messages that are left
)

// QueueSample is what was seen at the end of a window, and in it.
type QueueSample struct {
	QueueStats
	Long time.Duration // the window
	Left uint64        // messages at its beginning that the group was not done with
}

// Window is the stats of one sample, of which the counts that are known are set.
func (s QueueSample) Window() QueueStats {
	q := s.QueueStats
	q.Windows, q.MostLag, q.MostOldest, q.MostBytes, q.Told = 1, q.Lag, q.Oldest, q.Bytes, int64(s.Long)
	if q.MaxBytes > 0 && float64(q.Bytes) >= fullFrom*float64(q.MaxBytes) {
		q.Full = 1
	}
	left := q.Lag + q.InFlight
	if q.Measured > 0 && left > s.Left && left >= growingLeast && float64(left-s.Left) >= growingBy*float64(q.Published) {
		q.Head, q.Tail, q.Growing = 1, 1, 1
	}
	return q
}

// Then adds what came after it.
func (s *QueueStats) Then(o *QueueStats) {
	if s.Windows == 0 {
		*s = *o
		return
	}
	was := *s
	*s = *o
	s.Windows = sum(was.Windows, o.Windows)
	s.MostLag, s.MostOldest, s.MostBytes = max(was.MostLag, o.MostLag), max(was.MostOldest, o.MostOldest), max(was.MostBytes, o.MostBytes)
	s.Measured, s.Blocked, s.Told = sum(was.Measured, o.Measured), sum(was.Blocked, o.Blocked), sum(was.Told, o.Told)
	s.Published, s.Handled, s.Refused, s.Full = sum(was.Published, o.Published), sum(was.Handled, o.Handled), sum(was.Refused, o.Refused), sum(was.Full, o.Full)
	s.Grown = was.Grown + o.Grown
	s.Growing = max(was.Growing, o.Growing, sum(was.Tail, o.Head))
	s.Head, s.Tail = was.Head, o.Tail
	if was.Head == was.Windows {
		s.Head = sum(was.Head, o.Head)
	}
	if o.Tail == o.Windows {
		s.Tail = sum(was.Tail, o.Tail)
	}
}

// sum stays at the end of what there is.
func sum[N int64 | uint64](a, b N) N {
	if most := N(math.MaxInt64); a > most-min(b, most) {
		return most
	}
	return a + b
}

// Per is a count for each second that was measured; NaN: nothing was.
func (s *QueueStats) Per(n uint64) float64 { return float64(n) / time.Duration(s.Measured).Seconds() }

// UntilFull is when the topic is full if it goes on so; 0: it does not grow, or that is not known.
func (s *QueueStats) UntilFull() time.Duration {
	if s.Grown <= 0 || s.Measured <= 0 || s.MaxBytes == 0 {
		return 0
	}
	if s.Bytes >= s.MaxBytes {
		return 1 // ns: now
	}
	ns := float64(s.MaxBytes-s.Bytes) / float64(s.Grown) * float64(s.Measured)
	return time.Duration(min(ns, float64(maxUntilFull)))
}

const maxUntilFull = 10 * 365 * 24 * time.Hour

// backpressure tells whether a queue keeps its senders waiting, or will. What is the topic's is said of its slowest group alone.
func backpressure(k QueueKey, s *QueueStats, slowest bool) []Finding {
	blocked := float64(s.Blocked) / float64(max(s.Told, 1))
	full := float64(s.Full) / float64(max(s.Windows, 1))
	var why []string
	if slowest && blocked > blockedLeast {
		why = append(why, fmt.Sprintf("senders waited for room %.1f %% of the time", 100*blocked))
	}
	if slowest && full >= fullLeast {
		why = append(why, fmt.Sprintf("it was %.0f %% full or more in %d of %d windows", 100*fullFrom, s.Full, s.Windows))
	}
	if s.Growing >= growingWindows {
		why = append(why, fmt.Sprintf("more came than was done with in %d windows running, and %d messages are left", s.Growing, sum(s.Lag, s.InFlight)))
	}
	if len(why) == 0 {
		return nil
	}
	v := map[string]float64{
		"blocked": blocked, "refused": float64(s.Refused), "full": float64(s.Full), "windows": float64(s.Windows), "growing": float64(s.Growing),
		"bytes": float64(s.Bytes), "capacity": float64(s.MaxBytes), "lag": float64(s.Lag), "inFlight": float64(s.InFlight),
	}
	if s.Measured > 0 {
		v["in"], v["out"] = s.Per(s.Published), s.Per(s.Handled)
	}
	text := strings.Join(why, "; ")
	if until := s.UntilFull(); until > 0 {
		v["untilFull"] = until.Seconds()
		text += "; full in " + roughly(until)
	}
	advice := ": send less, or let it Keep more, or for less long" // handled messages stay
	if s.Growing >= growingWindows {
		advice = ": handle faster, or send less"
	}
	group := cmp.Or(k.Group, "(none)") // no group has that name
	return []Finding{{
		Kind: Backpressure, From: Node{Queue, k.Topic}, To: Node{Group, group}, Operation: k.Topic, Cost: s.Blocked, Values: v, Evidence: []Evidence{},
		Text: text + advice,
	}}
}

// roughly is a time to come, for people.
func roughly(d time.Duration) string {
	for _, unit := range []struct {
		long time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*unit.long {
			return fmt.Sprintf("%.0f %s", d.Seconds()/unit.long.Seconds(), unit.name)
		}
	}
	return fmt.Sprintf("%.0f seconds", d.Seconds())
}

// slower tells whether a group has more left than another.
func (s *QueueStats) slower(than *QueueStats) bool {
	return sum(s.Lag, s.InFlight) > sum(than.Lag, than.InFlight)
}

// AddQueues adds what stands out of queues.
func (r *Report) AddQueues(all map[QueueKey]*QueueStats) {
	slowest := map[QueueKey]QueueKey{} // by topic, with no group
	for k, s := range all {
		topic := QueueKey{Topic: k.Topic, Created: k.Created}
		if than, is := slowest[topic]; !is || s.slower(all[than]) || !all[than].slower(s) && k.Group < than.Group {
			slowest[topic] = k
		}
	}
	for k, s := range all {
		r.Findings = append(r.Findings, backpressure(k, s, slowest[QueueKey{Topic: k.Topic, Created: k.Created}] == k)...)
	}
	sortFindings(r.Findings)
}
