package share_test

import (
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lsub/lsub/share"
)

// TestFSTest runs the cases and random operations of e2e/fstest on a share. They run in a
// process of their own: a page fault of the server's own process may wait for ever.
func TestFSTest(t *testing.T) {
	prog := filepath.Join(t.TempDir(), "fstest")
	if out, err := exec.Command("go", "build", "-o", prog, "../e2e/fstest").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	at, _ := mountShare(t, share.Config{Writable: true})
	for _, args := range [][]string{{at}, {"-ops", "2000", "-seed", "1", at}} {
		if out, err := exec.CommandContext(t.Context(), prog, args...).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}
