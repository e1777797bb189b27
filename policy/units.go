package policy

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Duration is a time span that reads and writes as protoJSON does: seconds with up to
// nine decimals and an s, such as 0.25s.
type Duration time.Duration

// Second is a second.
const Second = Duration(time.Second)

// maxProtoSeconds is the largest google.protobuf.Duration.
const maxProtoSeconds = 315_576_000_000

// String returns d as it is written in a file.
func (d Duration) String() string {
	sign, n := "", uint64(d)
	if d < 0 {
		sign, n = "-", -n
	}
	s := fmt.Sprintf("%s%d", sign, n/1e9)
	if frac := n % 1e9; frac != 0 {
		s += strings.TrimRight(fmt.Sprintf(".%09d", frac), "0")
	}
	return s + "s"
}

func (d *Duration) parse(s string) error {
	wrong := func() error {
		if t, err := time.ParseDuration(s); err == nil && t != 0 {
			return fmt.Errorf("%q is not how gRPC writes durations: write %q", s, Duration(t))
		}
		return fmt.Errorf("%q is not a duration: write seconds, such as \"0.25s\"", s)
	}
	body, ok := strings.CutSuffix(s, "s")
	if !ok {
		return wrong()
	}
	body, negative := strings.CutPrefix(body, "-")
	whole, frac, _ := strings.Cut(body, ".")
	if whole == "" && frac == "" || !digits(whole) || !digits(frac) || len(frac) > 9 {
		return wrong()
	}
	sec, err := strconv.ParseInt("0"+whole, 10, 64)
	if err != nil || sec > maxProtoSeconds {
		return fmt.Errorf("%q is too long for a duration, %ds at most", s, int64(maxProtoSeconds))
	}
	nanos, _ := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
	n := int64(math.MaxInt64)
	if most := int64(math.MaxInt64); sec <= (most-nanos)/int64(Second) {
		n = sec*int64(Second) + nanos
	}
	if negative {
		n = -n
	}
	*d = Duration(n)
	return nil
}

func digits(s string) bool { return strings.Trim(s, "0123456789") == "" }

// Size is a number of bytes; a file may write 16MiB.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1}}

// String returns s in the largest binary unit that divides it.
func (s Size) String() string {
	for i := 3; i >= 0; i-- {
		if u := sizeUnits[i]; s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

func (s *Size) parse(text string) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/u.bytes {
			break
		}
		*s = Size(n * u.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size: write bytes, or a unit such as 16MiB", text)
}

func (s *Size) number(n int64) error {
	if n < 0 {
		return fmt.Errorf("%d is not a size: write bytes, or a unit such as 16MiB", n)
	}
	*s = Size(n)
	return nil
}

// Delay is a fixed time or a percentile of what is observed.
type Delay struct {
	Fixed      Duration // if Percentile is 0
	Percentile float64  // 0 < Percentile < 100
}

// String returns d as it is written in a file.
func (d Delay) String() string {
	if d.Percentile != 0 {
		return "p" + strconv.FormatFloat(d.Percentile, 'f', -1, 64)
	}
	return d.Fixed.String()
}

func (d *Delay) parse(s string) error {
	if number, ok := strings.CutPrefix(s, "p"); ok {
		p, err := strconv.ParseFloat(number, 64)
		if err != nil || !(p > 0 && p < 100) {
			return fmt.Errorf("%q is not a percentile: write p95, more than p0 and less than p100", s)
		}
		*d = Delay{Percentile: p}
		return nil
	}
	if err := d.Fixed.parse(s); err != nil {
		return fmt.Errorf("%w, or a percentile, such as p95", err)
	}
	if d.Fixed < 0 {
		return fmt.Errorf("%q is negative", s)
	}
	return nil
}

// Code is a gRPC status code, written as its name; gRPC takes numbers too.
type Code codes.Code

var codeNames = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
}

// String returns gRPC's name of c.
func (c Code) String() string {
	return named(c, codeNames)
}

func (c *Code) parse(s string) error { return chosen(c, s, codeNames, "a status code") }

func (c *Code) number(n int64) error {
	if n < 0 || n >= int64(len(codeNames)) {
		return fmt.Errorf("%d is not a status code: 0 to %d, or a name, such as UNAVAILABLE", n, len(codeNames)-1)
	}
	*c = Code(n)
	return nil
}

// Idempotency tells whether a method may run twice, in the words of
// google.protobuf.MethodOptions.
type Idempotency int

// The levels. A method of which nothing is known is never run twice.
const (
	IdempotencyUnknown Idempotency = iota
	NoSideEffects
	Idempotent
)

var idempotencyNames = []string{"IDEMPOTENCY_UNKNOWN", "NO_SIDE_EFFECTS", "IDEMPOTENT"}

// String returns the name in a file.
func (i Idempotency) String() string { return named(i, idempotencyNames) }

func (i *Idempotency) parse(s string) error { return chosen(i, s, idempotencyNames, "an idempotency") }

// Criticality orders calls when there is too much to do.
type Criticality int

// What is sheddable is shed first, what is critical last.
const (
	CriticalityDefault Criticality = iota
	Critical
	Sheddable
)

var criticalityNames = []string{"default", "critical", "sheddable"}

// String returns the name in a file.
func (c Criticality) String() string { return named(c, criticalityNames) }

func (c *Criticality) parse(s string) error { return chosen(c, s, criticalityNames, "a criticality") }

// WindowType is what a breaker's window counts.
type WindowType int

// Calls or seconds.
const (
	CountBased WindowType = iota
	TimeBased
)

var windowNames = []string{"COUNT_BASED", "TIME_BASED"}

// String returns the name in a file.
func (w WindowType) String() string { return named(w, windowNames) }

func (w *WindowType) parse(s string) error { return chosen(w, s, windowNames, "a window type") }

// TransportName is a way that a call can take.
type TransportName int

// The ways.
const (
	SHM TransportName = iota
	Unix
	TCP
)

var transportNames = []string{"shm", "unix", "tcp"}

// String returns the name in a file.
func (t TransportName) String() string { return named(t, transportNames) }

func (t *TransportName) parse(s string) error { return chosen(t, s, transportNames, "a transport") }

// named returns the name of v, or its number.
func named[T ~int | ~uint32](v T, names []string) string {
	if i := int(v); i >= 0 && i < len(names) {
		return names[i]
	}
	return strconv.Itoa(int(v))
}

// chosen sets to to the index of s in names.
func chosen[T ~int | ~uint32](to *T, s string, names []string, what string) error {
	for i, name := range names {
		if s == name {
			*to = T(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not %s%s: one of %s", s, what, meant(s, names), strings.Join(names, ", "))
}
