package routemap

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

const aWindow = 10 * time.Second

// queueOver is a queue that had so many messages left at the end of each window, while 100 came in each.
func queueOver(of QueueStats, left ...uint64) *QueueStats {
	all := new(QueueStats)
	for i, n := range left {
		s := of
		s.Lag, s.Measured, s.Published = n, int64(aWindow), 100
		before := n
		if i > 0 {
			before = left[i-1]
		}
		w := QueueSample{s, aWindow, before}.Window()
		all.Then(&w)
	}
	return all
}

func found(all map[QueueKey]*QueueStats) []Finding {
	r := New().Report()
	r.AddQueues(all)
	return r.Findings
}

// TestBackpressure: each of the three causes is found, and none a little below.
func TestBackpressure(t *testing.T) {
	flat := make([]uint64, 100)
	some := func(full int) *QueueStats {
		all := new(QueueStats)
		for i := range 100 {
			s := QueueStats{MaxBytes: 1000, Bytes: 799}
			if i < full {
				s.Bytes = 800
			}
			w := QueueSample{s, aWindow, 0}.Window()
			all.Then(&w)
		}
		return all
	}
	for name, c := range map[string]struct {
		s    *QueueStats
		want string
	}{
		"nothing":                 {queueOver(QueueStats{}, flat...), ""},
		"blocked 1 %":             {queueOver(QueueStats{Blocked: int64(aWindow) / 100}, flat...), ""},
		"blocked 1.1 %":           {queueOver(QueueStats{Blocked: int64(aWindow) * 11 / 1000}, flat...), "senders waited for room 1.1 % of the time"},
		"refused":                 {queueOver(QueueStats{Refused: 5}, flat...), ""},
		"full in 4 %":             {some(4), ""},
		"full in 5 %":             {some(5), "it was 80 % full or more in 5 of 100 windows"},
		"no limit":                {queueOver(QueueStats{Bytes: 5000}, flat...), ""},
		"growing twice":           {queueOver(QueueStats{}, 50, 60, 70, 70, 80, 90, 90), ""},
		"growing three times":     {queueOver(QueueStats{}, 50, 60, 70, 80, 80), "in 3 windows running, and 80 messages are left"},
		"growing by less":         {queueOver(QueueStats{}, 5000, 5000, 5000, 5000, 5000), ""},
		"growing, and few left":   {queueOver(QueueStats{}, 1, 3, 5, 7, 9), ""},
		"growing, and few at end": {queueOver(QueueStats{}, 10, 12, 14, 16, 2), "and 2 messages are left"},
		"shrinking":               {queueOver(QueueStats{}, 500, 400, 300, 200, 100), ""},
	} {
		all := found(map[QueueKey]*QueueStats{{Topic: "orders", Group: "g"}: c.s})
		switch {
		case c.want == "" && len(all) > 0:
			t.Errorf("%s: %+v", name, all)
		case c.want != "" && (len(all) != 1 || !strings.Contains(all[0].Text, c.want) || all[0].Kind != Backpressure || all[0].Values["windows"] != float64(c.s.Windows)):
			t.Errorf("%s: %+v", name, all)
		}
	}
	byOnePercent := new(QueueStats)
	for i := range 4 {
		s := QueueStats{Lag: 1000 + uint64(i)*99, Measured: 1, Published: 10_000}
		w := QueueSample{s, aWindow, 1000 + uint64(max(i-1, 0))*99}.Window()
		byOnePercent.Then(&w)
	}
	if all := found(map[QueueKey]*QueueStats{{Topic: "orders"}: byOnePercent}); len(all) != 0 {
		t.Errorf("less than 1 %% more came than was done with: %+v", all)
	}
}

// TestBackpressureOfTopic: what concerns a topic is said once, of its slowest group.
func TestBackpressureOfTopic(t *testing.T) {
	full := QueueStats{MaxBytes: 1000, Bytes: 900, Grown: 50}
	all := found(map[QueueKey]*QueueStats{
		{Topic: "orders", Group: "a"}: queueOver(full, 5, 5), {Topic: "orders", Group: "b"}: queueOver(full, 7, 7), {Topic: "orders", Group: "c"}: queueOver(full, 20, 30, 40, 50, 5),
		{Topic: "orders", Created: 1}: queueOver(QueueStats{}, 7, 7),
	})
	if len(all) != 2 || all[0].To.Name != "b" || all[1].To.Name != "c" || strings.Contains(all[1].Text, "full or more") {
		t.Fatalf("%+v", all)
	}
	if f := all[0]; f.Values["untilFull"] != 20 || !strings.Contains(f.Text, "full in 20 seconds") || f.Values["in"] != 10 {
		t.Errorf("%+v", f)
	}
}

// TestQueueThen: stats of windows are the same, however they were put together.
func TestQueueThen(t *testing.T) {
	left := []uint64{10, 20, 30, 20, 30, 40, 50, 60, 60, 70, 80}
	window := func(i int) QueueStats {
		s := QueueStats{Lag: left[i], Published: 20, Measured: 5, Grown: int64(i) - 3, Refused: 1, Bytes: uint64(i), MaxBytes: 9, At: int64(i), Blocked: 2}
		return QueueSample{s, aWindow, left[max(i-1, 0)]}.Window()
	}
	fold := func(from, to int) *QueueStats {
		all := new(QueueStats)
		for i := from; i < to; i++ {
			w := window(i)
			all.Then(&w)
		}
		return all
	}
	want := fold(0, len(left))
	if want.Growing != 4 || want.Head != 0 || want.Tail != 2 || want.Windows != 11 || want.MostLag != 80 || want.Lag != 80 || want.Full != 3 || want.Blocked != 22 {
		t.Errorf("%+v", want)
	}
	for i := range left {
		for k := i; k <= len(left); k++ {
			got := fold(0, i)
			got.Then(fold(i, k))
			if k < len(left) {
				got.Then(fold(k, len(left)))
			}
			if i < k && *got != *want {
				t.Errorf("parted at %d and %d: %+v, want %+v", i, k, *got, *want)
			}
		}
	}
}

// TestUntilFull: room by growth, whatever the numbers.
func TestUntilFull(t *testing.T) {
	for _, c := range []struct {
		s    QueueStats
		want time.Duration
	}{
		{QueueStats{}, 0}, {QueueStats{MaxBytes: 1000, Bytes: 500, Grown: 0, Measured: int64(time.Second)}, 0}, {QueueStats{MaxBytes: 1000, Bytes: 500, Grown: -5, Measured: int64(time.Second)}, 0},
		{QueueStats{MaxBytes: 1000, Bytes: 500, Grown: 50, Measured: int64(time.Second)}, 10 * time.Second}, {QueueStats{MaxBytes: 1000, Bytes: 1500, Grown: 50, Measured: 1}, 1},
		{QueueStats{MaxBytes: 1 << 62, Grown: 1, Measured: int64(time.Hour)}, maxUntilFull},
	} {
		if got := c.s.UntilFull(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.s, got, c.want)
		}
	}
}

// TestQueuesPacked: what is packed comes back, each field of it; what is cut or changed is told.
func TestQueuesPacked(t *testing.T) {
	s := new(QueueStats)
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprint("text ", i))
		case reflect.Uint64:
			f.SetUint(uint64(1000 + i))
		default:
			f.SetInt(int64(2000 + i))
		}
	}
	all := map[QueueKey]*QueueStats{{"orders", -5, "g"}: s, {"orders", 7, ""}: {Grown: -1}, {}: {}}
	data := PackQueues(all)
	back, err := UnpackQueues(data)
	if err != nil || !reflect.DeepEqual(back, all) {
		t.Errorf("%+v, %v", back, err)
	}
	for n := range data {
		if _, err := UnpackQueues(data[:n]); err == nil {
			t.Errorf("%d bytes are read", n)
		}
	}
	a, b := QueueKey{"a", 1, "bc"}, QueueKey{"ab", 1, "c"}
	if a.ID() == b.ID() || len(a.ID()) != 16 {
		t.Error("two queues have one ID")
	}
}

// FuzzQueues: bytes of strangers are refused, or are queues that pack to what reads the same.
func FuzzQueues(f *testing.F) {
	f.Add(PackQueues(map[QueueKey]*QueueStats{{"orders", 7, "g"}: {Lag: 3, Where: "unix:/x"}}))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := UnpackQueues(data)
		if err != nil {
			return
		}
		again, err := UnpackQueues(PackQueues(all))
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Errorf("%v, %v", again, err)
		}
	})
}
