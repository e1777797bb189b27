package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// statusClientClosed is what nginx logs for a client that went away.
const statusClientClosed = 499

// httpError is an error that the gateway found by itself.
type httpError struct {
	code    int
	name    string // of the gRPC code that says the same
	message string
}

func (e *httpError) Error() string { return e.message }

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, "INVALID_ARGUMENT", fmt.Sprintf(format, args...)}
}

// outcomes maps gRPC codes as the comments of google.rpc.Code have it. Other
// codes are 500.
var outcomes = map[codes.Code]httpError{
	codes.Canceled:           {statusClientClosed, "CANCELLED", ""},
	codes.InvalidArgument:    {http.StatusBadRequest, "INVALID_ARGUMENT", ""},
	codes.DeadlineExceeded:   {http.StatusGatewayTimeout, "DEADLINE_EXCEEDED", "the shop took too long to answer"},
	codes.NotFound:           {http.StatusNotFound, "NOT_FOUND", ""},
	codes.AlreadyExists:      {http.StatusConflict, "ALREADY_EXISTS", ""},
	codes.PermissionDenied:   {http.StatusForbidden, "PERMISSION_DENIED", ""},
	codes.Unauthenticated:    {http.StatusUnauthorized, "UNAUTHENTICATED", ""},
	codes.ResourceExhausted:  {http.StatusTooManyRequests, "RESOURCE_EXHAUSTED", ""},
	codes.FailedPrecondition: {http.StatusConflict, "FAILED_PRECONDITION", ""},
	codes.Aborted:            {http.StatusConflict, "ABORTED", ""},
	codes.OutOfRange:         {http.StatusBadRequest, "OUT_OF_RANGE", ""},
	codes.Unimplemented:      {http.StatusNotImplemented, "UNIMPLEMENTED", "the shop cannot do this yet"},
	codes.Unavailable:        {http.StatusServiceUnavailable, "UNAVAILABLE", "part of the shop is closed; try again"},
}

// toHTTP keeps what a service says about the request, and hides what it says
// about itself.
func toHTTP(err error) *httpError {
	if own := (*httpError)(nil); errors.As(err, &own) {
		return own
	}
	st := status.Convert(err)
	out, ok := outcomes[st.Code()]
	if !ok {
		return &httpError{http.StatusInternalServerError, "INTERNAL", "the shop has a fault"}
	}
	if out.message == "" {
		out.message = st.Message()
	}
	return &out
}

func writeError(w http.ResponseWriter, r *http.Request, err error) {
	out := toHTTP(err)
	if out.code >= http.StatusInternalServerError {
		slog.Warn("request failed", "method", r.Method, "path", r.URL.Path, "status", out.code, "error", err)
	}
	type detail struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	writeJSON(w, out.code, map[string]detail{"error": {out.name, out.message}})
}

func writeJSON(w http.ResponseWriter, code int, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		slog.Error("answer is not JSON", "error", err)
		http.Error(w, `{"error":{"code":"INTERNAL","message":"the shop has a fault"}}`, http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n')) // a client that went away is not our error
}
