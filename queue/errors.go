package queue

import (
	"errors"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/stile-ipc/stile/queue/embedded"
	"github.com/stile-ipc/stile/queue/internal/redo"
)

// Errors that callers can tell apart, with errors.Is.
var (
	// ErrFull: the topic has as much as it may hold, and takes nothing until messages have aged out.
	ErrFull = errors.New("the topic is full until messages have aged out: publish again later, or let it Keep more")
	// ErrTooLarge: the message, or what is published together, is larger than the server or the log takes.
	ErrTooLarge = errors.New("the message is too large")
	// ErrClosed: the queue is closed.
	ErrClosed = errors.New("the queue is closed")
	// ErrDamaged: the log of acknowledged messages has holes that no power cut makes.
	ErrDamaged = redo.ErrDamaged
	// ErrInUse: another process has the folder open. Use its server, by URL, or another folder.
	ErrInUse = embedded.ErrInUse
	// ErrAway: no process has the folder open whose server was to be used.
	ErrAway = embedded.ErrAway
	// ErrNoAnswer: nobody said in time whether the message was stored. Publishing it again with the same ID is safe.
	ErrNoAnswer = errors.New("no answer from the server")
)

// Codes of JetStream that mean something to our callers.
const (
	codeStoreFailed   = 10077 // with DiscardNew: a limit is reached
	codeMaxResources  = 10023 // of the server
	codeAccountLimit  = 10002
	codeNoStorage     = 10047 // for what a new stream may have
	codeMessageLarge  = 10054
	codeHeaderLarge   = 10097
	codeIngestPending = 10167 // too much is on its way into the stream
	codeInFlight      = 10158 // a message with this ID is, and not yet kept
)

// explained is an error of the server as one of ours.
func explained(err error) error {
	var api *jetstream.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &api):
		switch api.ErrorCode {
		case codeStoreFailed, codeMaxResources, codeAccountLimit:
			return fmt.Errorf("%w: %s", ErrFull, api.Description)
		case codeNoStorage:
			return fmt.Errorf("what all topics may keep is more than the server may store: raise Config.MaxStore, or Keep less: %w", err)
		case codeMessageLarge, codeHeaderLarge:
			return fmt.Errorf("%w: %s", ErrTooLarge, api.Description)
		}
	case errors.Is(err, nats.ErrMaxPayload):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, redo.ErrTooLarge):
		return fmt.Errorf("%w: %w", ErrTooLarge, err)
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, redo.ErrClosed):
		return ErrClosed
	}
	return err
}

// unanswered tells whether an error says nothing of whether the message was stored, or that it was not and can be in a moment.
func unanswered(err error) bool {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		switch api.ErrorCode {
		case codeNotLeader, codeInFlight, codeIngestPending, codeBatchIncomplete, codeBatches:
			return true
		}
		return api == noResponders
	}
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, nats.ErrReconnectBufExceeded)
}

// nobodyListens tells whether there is no such stream, or its server is away.
func nobodyListens(err error) bool {
	var api *jetstream.APIError
	return errors.As(err, &api) && api == noResponders
}
