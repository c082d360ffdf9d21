//go:build unix

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Ctrl-C while the archive comes, from a pipe that stays open and silent.
func TestImportInterrupted(t *testing.T) {
	env := testHome(t)
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer theirs.Close()
	if _, err := theirs.Write(tinyImage("x")[:512]); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("lsub", "import", "new", "-")
	cmd.Env, cmd.Stdin = env, ours
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ours.Close()
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said += lines.Text() + "\n"
		if lines.Text() == "lsub: reading stdin" {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 || !strings.HasSuffix(said, "lsub: error: interrupted\n") {
		t.Errorf("%v: %s", cmd.ProcessState, said)
	}
	for _, e := range env {
		if cache, ok := strings.CutPrefix(e, "XDG_CACHE_HOME="); ok {
			if left, _ := filepath.Glob(filepath.Join(cache, "lsub", "stdin-*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		}
	}
}

// At a terminal there is no archive to read.
func TestImportTerminal(t *testing.T) {
	x := openTerminal(t, testHome(t), "import", "new", "-")
	x.expect("lsub: error: stdin is a terminal, not an archive\r\nlsub: hint: pipe one into it, ")
	x.exits(125)
}
