package provision

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// runStep runs step.sh in the shell of the host.
func runStep(t *testing.T, dir, mark, script string, size int, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", stepScript, "lsub-step", dir, mark)
	cmd.Stdin = strings.NewReader(script)
	cmd.Env = append(os.Environ(), append([]string{"LSUB_STEP=a step", fmt.Sprintf("LSUB_SIZE=%d", size), "LSUB_CREATES=", "LSUB_UNLESS="}, env...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func TestStepScript(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		env    []string
		cut    int // bytes that do not come
		out    string
		status int
		marked bool
	}{
		"a script":            {script: "echo \"it's $LSUB_STEP {{x}}\"; printf 'a\\r\\n'", out: "lsub-step: run\nit's a step {{x}}\na\r\n", marked: true},
		"stops at a failure":  {script: "false\necho no", out: "lsub-step: run\n", status: 1},
		"another interpreter": {script: "#!/usr/bin/env -S sh -u\nfalse\necho yes", out: "lsub-step: run\nyes\n", marked: true},
		"a status":            {script: "exit 42", out: "lsub-step: run\n", status: 42},
		"both streams":        {script: "echo a; echo b >&2; echo c", out: "lsub-step: run\na\nb\nc\n", marked: true},
		"no stdin":            {script: "cat; echo end", out: "lsub-step: run\nend\n", marked: true},
		"cut off":             {script: "echo half", cut: 1, out: "lsub-step: run\n", status: 125},
		"creates, there":      {script: "echo no", env: []string{"LSUB_CREATES=/etc/passwd"}, out: "lsub-step: skip\n"},
		"creates, not there":  {script: "echo yes", env: []string{"LSUB_CREATES=/nonesuch"}, out: "lsub-step: run\nyes\n", marked: true},
		"unless, succeeds":    {script: "echo no", env: []string{"LSUB_UNLESS=true; echo said"}, out: "lsub-step: skip\n"},
		"unless, fails":       {script: "echo yes", env: []string{"LSUB_UNLESS=exit 3"}, out: "lsub-step: run\nyes\n", marked: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "marks")
			script := c.script[:len(c.script)-c.cut]
			cmd := runStep(t, dir, "step-x", script, len(c.script), c.env...)
			out, err := cmd.Output()
			if cmd.ProcessState.ExitCode() != c.status || string(out) != c.out {
				t.Errorf("status %d, %v, %q", cmd.ProcessState.ExitCode(), err, out)
			}
			text, err := os.ReadFile(filepath.Join(dir, "step-x"))
			if c.marked != (err == nil) || c.marked && string(text) != "a step\n" {
				t.Errorf("the mark has %q, %v", text, err)
			}
			if c.marked {
				if again, _ := runStep(t, dir, "step-x", script, len(script)).Output(); string(again) != "lsub-step: skip\n" {
					t.Errorf("a second run: %q", again)
				}
			}
		})
	}
}

// TestStepHangUp hangs a step up, as the agent does where lsub was killed: one that ends by it
// leaves no mark, and one that goes on leaves one. The next waits for it and runs nothing.
func TestStepHangUp(t *testing.T) {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // else steps ignore it where this test does, as under nohup
	for name, c := range map[string]struct {
		trap   string
		marked bool
	}{"ends": {"", false}, "goes on": {"trap '' HUP;", true}} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir, gate := filepath.Join(top, "marks"), filepath.Join(top, "gate")
			if err := syscall.Mkfifo(gate, 0o600); err != nil {
				t.Fatal(err)
			}
			script := fmt.Sprintf("%s echo > %s; cat %s > /dev/null; echo ran >> %s/ran", c.trap, gate, gate, top)
			cmd := runStep(t, dir, "step-x", script, len(script))
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := os.ReadFile(gate); err != nil { // it runs
				t.Fatal(err)
			}
			if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			if !c.marked {
				cmd.Wait()
			} else {
				next := runStep(t, dir, "step-x", "echo twice", len("echo twice"))
				var out strings.Builder
				next.Stdout = &out
				if err := next.Start(); err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(50 * time.Millisecond) // the next most likely waits by now
					os.WriteFile(gate, nil, 0)
				}()
				if err := cmd.Wait(); err != nil {
					t.Error(err)
				}
				if err := next.Wait(); err != nil || out.String() != "lsub-step: skip\n" {
					t.Errorf("the next: %q, %v", out.String(), err)
				}
			}
			if _, err := os.Stat(filepath.Join(dir, "step-x")); c.marked != (err == nil) {
				t.Errorf("marked: %v", err)
			}
		})
	}
}
