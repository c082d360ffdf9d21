package agent

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/lsub/lsub/guest/agent/distroinit"
	"github.com/lsub/lsub/guest/agent/procfs"
)

// A distro whose init is not ready when commands enter does not shut down; it does when
// the init was ready since, and is no more.
func TestShutsDown(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	d := &distro{pid: os.Getpid(), readyDir: dir}
	check := func(when string, want bool) {
		t.Helper()
		if got := d.shutsDown(); got != want {
			t.Errorf("%s: shuts down: %v", when, got)
		}
	}
	check("not up yet", false)
	ready := filepath.Join(dir.Name(), distroinit.ReadyFile)
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	check("up", false)
	if !d.wasReady.Load() {
		t.Error("not known to be up")
	}
	if err := os.Remove(ready); err != nil {
		t.Fatal(err)
	}
	check("shutting down", true)
}

func TestIsExiting(t *testing.T) {
	cmd := exec.Command("cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if procfs.IsExiting(cmd.Process.Pid) || procfs.IsExiting(os.Getpid()) {
		t.Error("a process that runs is ending")
	}
	exited, err := watchExit(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	defer exited.close()
	in.Close()
	<-exited.c
	if !procfs.IsExiting(cmd.Process.Pid) {
		t.Error("one that has ended is not")
	}
	cmd.Wait()
	if !procfs.IsExiting(cmd.Process.Pid) {
		t.Error("one that is gone is not")
	}
}
