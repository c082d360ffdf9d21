package tcredirect

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestEvents has the kernel repeat an event of a device that each has.
func TestEvents(t *testing.T) {
	const device = "/devices/virtual/mem/null"
	repeat := func() {
		t.Helper()
		if err := os.WriteFile("/sys"+device+"/uevent", []byte("add"), 0); errors.Is(err, os.ErrPermission) || errors.Is(err, unix.EROFS) {
			t.Skipf("events cannot be repeated here: %v", err)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	read := func(prefix string, patience time.Duration) (string, error) {
		t.Helper()
		f, err := openEvents(prefix)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		repeat()
		if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8<<10)
		n, err := f.Read(buf)
		return string(buf[:n]), err
	}
	want := "add@" + device + "\x00"
	if got, err := read(want, 20*time.Second); !strings.HasPrefix(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if got, err := read("add@/module/x", 50*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("another event passes: %q, %v", got, err)
	}
}
