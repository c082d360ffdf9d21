package machine

import (
	"fmt"
	"os"
)

func ownedByUs(string) bool { return true }

// checkPrivate wants a directory. Those below a user's temporary directory inherit
// an access list that lets in the user and administrators alone.
func checkPrivate(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	return nil
}
