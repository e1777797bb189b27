package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/stile-ipc/stile/cmd/stile/internal/protos"
	"github.com/stile-ipc/stile/queue"
)

// shownMessage is what peek tells of a message.
type shownMessage struct {
	Sequence  uint64          `json:"sequence"`
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	Key       string          `json:"key,omitempty"`
	Published time.Time       `json:"published"`
	Dead      *death          `json:"dead,omitempty"`
	Message   json.RawMessage `json:"message,omitempty"` // if its type is known
	Data      []byte          `json:"data,omitempty"`    // if not
}

// death is what became of a dead letter.
type death struct {
	Reason   string    `json:"reason"`
	Error    string    `json:"error"`
	Attempts int       `json:"attempts"`
	Time     time.Time `json:"time"`
	Origin   uint64    `json:"origin"` // its sequence in the topic
}

func showRaw(types []*protoregistry.Files, m queue.RawMsg) shownMessage {
	s := shownMessage{Sequence: m.Sequence, ID: m.ID, Type: m.Type, Key: m.Key, Published: m.Published}
	s.show(types, m.Data)
	return s
}

func showDead(types []*protoregistry.Files, l queue.DeadLetter) shownMessage {
	s := shownMessage{
		Sequence: l.Sequence, ID: l.ID, Type: l.Type, Key: l.Key, Published: l.Published,
		Dead: &death{Reason: l.Reason, Error: l.Error, Attempts: l.Attempts, Time: l.Died, Origin: l.Origin},
	}
	s.show(types, l.Data)
	return s
}

// show makes JSON of a message, if it is one of a type that is known.
func (s *shownMessage) show(types []*protoregistry.Files, data []byte) {
	s.Data = data
	d := messageType(types, s.Type)
	if d == nil {
		return
	}
	m := dynamicpb.NewMessage(d)
	if proto.Unmarshal(data, m) != nil {
		return
	}
	if text, err := protojson.Marshal(m); err == nil {
		s.Message, s.Data = text, nil
	}
}

// messageTypes reads .proto files.
func messageTypes(ctx context.Context, sources, importPaths []string) ([]*protoregistry.Files, error) {
	if len(sources) == 0 {
		return nil, nil
	}
	return protos.Load(ctx, sources, importPaths)
}

// messageType returns nil if nobody knows the type.
func messageType(types []*protoregistry.Files, name string) protoreflect.MessageDescriptor {
	for _, files := range append(types, protoregistry.GlobalFiles) {
		if d, err := files.FindDescriptorByName(protoreflect.FullName(name)); err == nil {
			if m, ok := d.(protoreflect.MessageDescriptor); ok {
				return m
			}
		}
	}
	return nil
}

// encode makes a message of JSON, or of a file that has it.
func encode(types []*protoregistry.Files, name, data string) ([]byte, error) {
	d := messageType(types, name)
	if d == nil {
		return nil, fmt.Errorf("the topic's messages are %s, which no --proto has", name)
	}
	text := []byte(data)
	if file, ok := strings.CutPrefix(data, "@"); ok {
		var err error
		if file == "-" {
			text, err = io.ReadAll(os.Stdin)
		} else {
			text, err = os.ReadFile(file)
		}
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
	}
	m := dynamicpb.NewMessage(d)
	if err := protojson.Unmarshal(text, m); err != nil {
		return nil, fmt.Errorf("the data is no %s: %w", name, errors.New(plain(err.Error())))
	}
	return proto.Marshal(m)
}

// plain is a text that does nothing to a terminal.
func plain(s string) string {
	for _, r := range s {
		if !strconv.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

func printTopics(out io.Writer, all []queue.TopicInfo) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no topics")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tTYPE\tMESSAGES\tDELAYED\tBYTES\tOF\tKEPT FOR\tGROUPS")
	for _, t := range all {
		groups := plain(strings.Join(t.Groups, " "))
		if groups == "" {
			groups = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%s\t%s\n", plain(t.Name), plain(t.Type), t.Messages, t.Delayed, t.Bytes, t.MaxBytes, t.MaxAge, groups)
	}
	return w.Flush()
}

func printStats(out io.Writer, all []groupStats) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(out, "no groups")
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tLAG\tIN FLIGHT\tRETRYING\tWAITING\tDELAYED\tDEAD\tOLDEST")
	for _, g := range all {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%s\n", plain(g.Group), g.Lag, g.InFlight, g.Retrying, g.Waiting, g.Delayed, g.Dead, g.OldestAge.Round(time.Millisecond))
	}
	return w.Flush()
}

func printMessages(out io.Writer, all []shownMessage) error {
	var b strings.Builder
	if len(all) == 0 {
		b.WriteString("no messages\n")
	}
	for _, m := range all {
		fmt.Fprintf(&b, "%d  %s  %s  %s", m.Sequence, m.Published.UTC().Format(time.RFC3339Nano), plain(m.Type), plain(m.ID))
		if m.Key != "" {
			fmt.Fprintf(&b, "  key %s", plain(m.Key))
		}
		b.WriteByte('\n')
		if d := m.Dead; d != nil {
			fmt.Fprintf(&b, "    dead since %s, attempts: %d, was %d: %s: %s\n", d.Time.UTC().Format(time.RFC3339Nano), d.Attempts, d.Origin, plain(d.Reason), plain(d.Error))
		}
		if m.Message != nil {
			fmt.Fprintf(&b, "    %s\n", plain(string(m.Message)))
		} else {
			fmt.Fprintf(&b, "    %d bytes; --proto with its .proto files, or --json, shows them\n", len(m.Data))
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}
