package main

import (
	"os"
	"path/filepath"
)

// newLoginItems finds the folder of the user's agents.
func newLoginItems() (loginItems, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	return launchdLogin{filepath.Join(home, "Library", "LaunchAgents")}, nil
}
