package loginitem

import (
	"os"
	"os/exec"
	"path/filepath"
)

// Open finds the directory of the user's units.
func Open() (Store, error) {
	systemctl, err := exec.LookPath("systemctl")
	if err != nil {
		return nil, noLogin("this machine has no systemd, which would start the distro at login")
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return nil, err
	}
	return systemd{
		dir:    filepath.Join(dir, "systemd", "user"),
		reload: func() error { return runTool(systemctl, "--user", "daemon-reload") },
	}, nil
}
