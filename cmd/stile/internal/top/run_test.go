package top

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// TestRun starts and ends all of it, with a pipe for a keyboard.
func TestRun(t *testing.T) {
	in, keys := io.Pipe()
	asked := make(chan struct{}, 100)
	var out bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		ended <- Run(t.Context(), Config{
			Ask: func(context.Context) (Answer, error) {
				asked <- struct{}{}
				return shop(), nil
			},
			Every: time.Millisecond, Window: 30 * time.Second, In: in, Out: &out,
		})
	}()
	<-asked
	<-asked // the first answer was taken
	if _, err := keys.Write([]byte("q")); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	keys.Close()
	if !strings.Contains(out.String(), "\x1b[?1049l") {
		t.Errorf("the alternate screen is not left: %q", out.String())
	}
}

// TestRunUnanswered: who quits without an answer is told why there was none.
func TestRunUnanswered(t *testing.T) {
	in, keys := io.Pipe()
	defer keys.Close()
	want := errors.New("use https")
	err := Run(t.Context(), Config{
		Ask:   func(context.Context) (Answer, error) { return Answer{}, want },
		Fatal: func(error) bool { return true },
		Every: time.Millisecond, In: in, Out: io.Discard,
	})
	if !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

// TestRunCanceled: its context ends it, also while a question is open.
func TestRunCanceled(t *testing.T) {
	in, keys := io.Pipe()
	defer keys.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err := Run(ctx, Config{
		Ask: func(ctx context.Context) (Answer, error) {
			cancel()
			<-ctx.Done()
			return Answer{}, ctx.Err()
		},
		Every: time.Hour, In: in, Out: io.Discard,
	})
	if err == nil {
		t.Error("no error")
	}
}
