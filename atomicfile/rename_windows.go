package atomicfile

import (
	"errors"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// busyTimeout bounds how long others may have a file open that is replaced, or be replacing
// one that is read.
const busyTimeout = 5 * time.Second

// retryBusy repeats what Windows refuses while somebody else has the file: another lsub, a
// backup or an antivirus program.
func retryBusy(try func() error) error {
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) { // nothing tells of its end
		err := try()
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if !busy || time.Since(begin) > busyTimeout {
			return err
		}
	}
}

func renameOver(from, to string) error {
	return retryBusy(func() error { return os.Rename(from, to) })
}

// Read reads a file that Write may be replacing.
func Read(path string) (content []byte, err error) {
	err = retryBusy(func() (err error) {
		content, err = os.ReadFile(path)
		return err
	})
	return content, err
}
