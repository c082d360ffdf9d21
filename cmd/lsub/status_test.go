//go:build unix

package main

import (
	"os/exec"
	"sync"
	"testing"
)

// TestStatusMeanwhile asks for the status while the VM goes off: whatever the
// moment, that is no error.
func TestStatusMeanwhile(t *testing.T) {
	env := testHome(t)
	lsub := func(args ...string) {
		t.Helper()
		cmd := exec.Command("lsub", args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("lsub %v: %v\n%s", args, err, out)
		}
	}
	for range 3 {
		lsub("start", "debian")
		var asking sync.WaitGroup
		for range 4 {
			asking.Go(func() {
				for range 3 {
					lsub("status", "--json")
					lsub("list")
				}
			})
		}
		lsub("shutdown", "--force")
		asking.Wait()
	}
}
