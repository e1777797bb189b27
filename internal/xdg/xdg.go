// Package xdg finds folders as the XDG base directory specification has them.
package xdg

import (
	"os"
	"path/filepath"
)

// StateHome is the folder for what a program keeps for its user: $XDG_STATE_HOME, or ~/.local/state.
func StateHome() (string, error) {
	if state := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(state) { // another one is to be passed over
		return state, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".local", "state"), nil
}
