package loginitem

import (
	"os"
	"path/filepath"
)

// Open finds the directory of the user's agents.
func Open() (Store, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	return launchd{filepath.Join(home, "Library", "LaunchAgents")}, nil
}
