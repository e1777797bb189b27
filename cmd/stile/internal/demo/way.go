package demo

import (
	"fmt"
	"strings"
)

// Way is which way calls go in the set over Stile.
type Way struct {
	Services map[string]string `json:"services"`         // "shm", "unix" or "grpc", by program
	Reason   string            `json:"reason,omitempty"` // of the first that is not "shm"
}

// local reports whether all calls go through a local door.
func (w Way) local() bool {
	for _, way := range w.Services {
		if way == "grpc" {
			return false
		}
	}
	return true
}

// String is a line for people.
func (w Way) String() string {
	words := map[string]string{"shm": "shared memory", "unix": "Stile's unix sockets", "grpc": "grpc-go"}
	by := map[string][]string{}
	for _, name := range programs {
		if way, ok := w.Services[name]; ok {
			by[way] = append(by[way], name)
		}
	}
	var parts []string
	for _, way := range []string{"shm", "unix", "grpc"} {
		if len(by[way]) > 0 {
			parts = append(parts, fmt.Sprintf("%s: through %s", strings.Join(by[way], " "), words[way]))
		}
	}
	text := "calls over Stile to " + strings.Join(parts, "; to ")
	if w.Reason != "" {
		text += " (" + w.Reason + ")"
	}
	return text
}
