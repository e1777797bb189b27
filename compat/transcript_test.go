package compat

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sort"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// transcript is what a case saw, in lanes: within a lane order counts, between
// lanes it does not (they are different goroutines).
type transcript struct {
	mu    sync.Mutex
	lanes map[string][]string
}

func (tr *transcript) add(lane, format string, args ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.lanes == nil {
		tr.lanes = map[string][]string{}
	}
	tr.lanes[lane] = append(tr.lanes[lane], fmt.Sprintf(format, args...))
}

// sortLane makes order within lane not count.
func (tr *transcript) sortLane(lane string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	sort.Strings(tr.lanes[lane])
}

func (tr *transcript) copy() map[string][]string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	out := map[string][]string{}
	for k, v := range tr.lanes {
		out[k] = append([]string(nil), v...)
	}
	return out
}

// diff describes how got differs from want, "" if it does not.
func diff(want, got map[string][]string) string {
	lanes := map[string]bool{}
	for k := range want {
		lanes[k] = true
	}
	for k := range got {
		lanes[k] = true
	}
	var names []string
	for k := range lanes {
		names = append(names, k)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		w, g := want[n], got[n]
		if strings.Join(w, "\x00") == strings.Join(g, "\x00") {
			continue
		}
		fmt.Fprintf(&b, "  lane %s:\n", n)
		for i := range max(len(w), len(g)) {
			switch {
			case i < len(w) && i < len(g) && w[i] == g[i]:
				fmt.Fprintf(&b, "      %s\n", w[i])
			default:
				if i < len(w) {
					fmt.Fprintf(&b, "    - %s\n", w[i])
				}
				if i < len(g) {
					fmt.Fprintf(&b, "    + %s\n", g[i])
				}
			}
		}
	}
	return b.String()
}

// brief keeps long strings readable and still compares all of them.
func brief(s string) string {
	if len(s) <= 120 {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q… (%d bytes, crc %08x)", s[:16], len(s), crc32.ChecksumIEEE([]byte(s)))
}

// mdText is one line for md: sorted keys, all values in order. What compressors
// the client advertises is left to a case of its own.
func mdText(md metadata.MD) string {
	if md == nil {
		return "nil"
	}
	var keys []string
	for k := range md {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var parts []string
	for _, k := range keys {
		if k == "grpc-accept-encoding" {
			parts = append(parts, k)
			continue
		}
		var vals []string
		for _, v := range md[k] {
			vals = append(vals, brief(v))
		}
		parts = append(parts, k+"="+strings.Join(vals, ","))
	}
	if len(parts) > 30 {
		return fmt.Sprintf("{%d keys: %s}", len(parts), brief(strings.Join(parts, " ")))
	}
	return "{" + strings.Join(parts, " ") + "}"
}

// errText is one line for an error as a user of grpc-go sees it.
func errText(err error) string {
	if err == nil {
		return "ok"
	}
	if err == io.EOF {
		return "EOF"
	}
	st, ok := status.FromError(err)
	if !ok {
		return fmt.Sprintf("plain error %q", err)
	}
	text := st.Message()
	if st.Code() == codes.DeadlineExceeded && strings.HasPrefix(text, "stream terminated by RST_STREAM") {
		// The server's reset may overtake the client's own timer.
		text = context.DeadlineExceeded.Error()
	}
	s := fmt.Sprintf("%s %s", st.Code(), brief(text))
	for _, d := range st.Details() {
		if m, ok := d.(fmt.Stringer); ok {
			s += fmt.Sprintf(" detail %T %s", d, strings.ReplaceAll(m.String(), "  ", " "))
		} else {
			s += fmt.Sprintf(" detail %T %v", d, d)
		}
	}
	if _, direct := err.(interface{ GRPCStatus() *status.Status }); !direct {
		s += " (wrapped)"
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		s += " (unexpected EOF)"
	}
	return s
}

// codeText is errText without the message, for messages that only describe the
// transport.
func codeText(err error) string {
	if err == io.EOF {
		return "EOF"
	}
	return status.Code(err).String()
}
