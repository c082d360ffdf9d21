//go:build !linux

package distro

import (
	"errors"
	"os"
)

// openUnnamed returns nil: only Linux has files without names.
func openUnnamed(string) *os.File { return nil }

func giveName(*os.File, string) error { return errors.ErrUnsupported }
