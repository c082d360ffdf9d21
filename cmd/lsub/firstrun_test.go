//go:build unix

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// wslHome is testHome with a distro "wsl" whose image has a setup.
func wslHome(t *testing.T, setup string, flags ...string) (env []string, lsub func(args ...string) string) {
	t.Helper()
	env = testHome(t)
	file := filepath.Join(t.TempDir(), "image.wsl")
	if err := os.WriteFile(file, tinyImage("wsl", setup), 0o600); err != nil {
		t.Fatal(err)
	}
	lsub = func(args ...string) string {
		t.Helper()
		cmd := exec.Command("lsub", args...)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("lsub %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	lsub(append([]string{"install", "--from-file", file}, flags...)...)
	return env, lsub
}

const wslSetup = "[oobe]\ncommand = oobe\ndefaultUid = 1000\ndefaultName = wsl\n"

// The first shell is there when the image's command has succeeded, and then it
// is that of the account that the command made.
func TestFirstRun(t *testing.T) {
	env, lsub := wslHome(t, wslSetup)
	if out := lsub("exec", "wsl", "--", "id"); out != "root" { // does not wait for it
		t.Errorf("before the first run: %q", out)
	}
	x := openTerminal(t, env, "-d", "wsl")
	x.expect("as root, user name: ")
	x.write("\r")
	x.expect("lsub: error: what wsl runs before its first shell ended with status 3\r\nlsub: hint: try again; ")
	x.exits(3)

	// Of two shells, one runs it.
	x = openTerminal(t, env, "-d", "wsl")
	x.expect("user name: ")
	y := openTerminal(t, env, "-d", "wsl")
	y.expect("waiting for the first start of wsl in another terminal")
	x.write("ada\r")
	x.expect("$ ")
	x.write("id\r")
	x.expect("ada\n")
	y.expect("$ ")
	y.write("id\r")
	y.expect("ada\n")
	for _, shell := range []*terminal{x, y} {
		shell.write("exit 4\r")
		shell.exits(4)
	}
	x = openTerminal(t, env, "-d", "wsl")
	x.expect("$ ")
	x.write("\x04")
	x.exits(0)
	if out := lsub("exec", "wsl", "--", "id"); out != "ada" {
		t.Errorf("after the first run: %q", out)
	}
	if out := lsub("list", "--json"); !strings.Contains(out, `"user": "ada"`) {
		t.Errorf("list: %s", out)
	}
	for _, e := range env {
		if home, ok := strings.CutPrefix(e, "LSUB_HOME="); ok {
			if left, _ := filepath.Glob(filepath.Join(home, "profiles", "default", "first-run-*")); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		}
	}
}

// Ctrl-C ends the command, and it is asked for again next time.
func TestFirstRunInterrupted(t *testing.T) {
	env, _ := wslHome(t, wslSetup)
	for range 2 {
		x := openTerminal(t, env, "-d", "wsl")
		x.expect("user name: ")
		if err := x.cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		x.expect("ended with status 130")
		x.exits(130)
	}
}

// A command that makes no account leaves root.
func TestFirstRunWithoutAccount(t *testing.T) {
	env, lsub := wslHome(t, "[oobe]\ncommand = true\ndefaultUid = 1000\ndefaultName = wsl\n")
	x := openTerminal(t, env, "run", "wsl")
	x.expect("lsub: warning: nobody in wsl has the number 1000, which its image says of the default user\r\n")
	x.expect("$ ")
	x.write("id\r")
	x.expect("root\n")
	x.write("\x04")
	x.exits(0)
	x = openTerminal(t, env, "run", "wsl")
	x.expect("$ ") // and says no more
	x.write("\x04")
	x.exits(0)
	if out := lsub("exec", "wsl", "--", "id"); out != "root" {
		t.Errorf("the default user is %q", out)
	}
}

// An account that the user asks for stands in for the first run, and what is
// imported had it before.
func TestNoFirstRun(t *testing.T) {
	env, lsub := wslHome(t, wslSetup, "--user", "ada")
	file := filepath.Join(t.TempDir(), "image.tar")
	if err := os.WriteFile(file, tinyImage("wsl", wslSetup), 0o600); err != nil {
		t.Fatal(err)
	}
	lsub("import", "imported", file)
	for distro, user := range map[string]string{"wsl": "ada", "imported": "root"} {
		x := openTerminal(t, env, "-d", distro)
		x.expect("$ ")
		x.write("id\r")
		x.expect(user + "\n")
		x.write("\x04")
		x.exits(0)
	}
}
