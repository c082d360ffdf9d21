package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// shutDown ends the VM of a script, if it has one.
func shutDown(env []string) ([]byte, error) {
	cmd := exec.Command("lsub", "shutdown", "--force")
	cmd.Env = env
	return cmd.CombinedOutput()
}

// status N lsub ARGS… runs lsub and wants exit status N.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// image FILE [SETUP] writes an archive that may become a distro, with the file
// SETUP as its /etc/wsl-distribution.conf.
func scriptImage(ts *testscript.TestScript, neg bool, args []string) {
	var setup []string
	for _, file := range args[1:] {
		setup = append(setup, ts.ReadFile(file))
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), tinyImage(args[0], setup...), 0o600))
}

// expand FROM TO copies a file with the values of the variables in it.
func scriptExpand(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(os.Expand(ts.ReadFile(args[0]), ts.Getenv)), 0o600))
}

// TestHelp holds the help of every command to what fits a screen, and to
// commands that say what they are for.
func TestHelp(t *testing.T) {
	a := &app{}
	for _, c := range a.root().Commands {
		if c.Hidden {
			continue
		}
		if c.Usage == "" || c.UsageText == "" {
			t.Errorf("%s has no usage", c.Name)
		}
		if strings.ToLower(c.Usage[:1]) != c.Usage[:1] {
			t.Errorf("%s: usage starts with a capital: %s", c.Name, c.Usage)
		}
	}
	var out bytes.Buffer
	root := a.root()
	root.Writer = &out
	if err := root.Run([]string{"lsub", "--help"}); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(out.Bytes(), []byte("\n")); n > 50 {
		t.Errorf("the help has %d lines", n)
	}
}
