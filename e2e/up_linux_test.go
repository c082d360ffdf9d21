package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// upProfile has a step that hangs the first time it is run.
const upProfile = `
distros:
  web:
    image: debian
    user: ada
    limits: {memory: 1GiB}
    environment: {EDITOR: vim}
    files:
      /etc/motd: "it's $HOME {{here}}\n"
      ~/.config/dot: {source: dot, mode: 0600}
    provision:
    - echo system >> /root/ran
    - name: slow
      script: |
        echo began >> /root/began
        [ "$(wc -l < /root/began)" -gt 1 ] || sleep 3600
        echo slow >> /root/ran
    - name: bus
      mode: user
      script: |
        #!/bin/bash
        set -eu
        [[ $EDITOR = vim && $PWD = $HOME ]]
        systemctl --user show-environment > /dev/null
        echo "$USER" >> ~/ran
    - {name: at boot, mode: boot, script: echo boot >> /root/ran}
    - {name: when ready, mode: ready, script: echo ready >> /root/ready}
    probes:
    - script: systemctl is-active systemd-logind
`

// TestUp has a profile make a distro, kills lsub in a step and the VM after it, and goes on.
func TestUp(t *testing.T) {
	h := fresh(t)
	file := filepath.Join(h.dir, "lsub.yaml")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("lsub.yaml", upProfile)
	write("dot", "dots\r\n")

	killed := exec.Command(h.bin, "up", "-f", file)
	killed.Env = h.env
	var said bytes.Buffer
	killed.Stdout, killed.Stderr = &said, &said
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(slow); !strings.Contains(h.run("exec", "-u", "root", "web", "--", "cat", "/root/began").out, "began"); {
		if time.Now().After(deadline) {
			killed.Process.Kill()
			killed.Wait()
			t.Fatalf("the step does not begin: %s", said.String())
		}
		time.Sleep(100 * time.Millisecond)
	}
	killed.Process.Kill()
	killed.Wait()

	if out := h.ok(t, "up"); strings.Contains(out, "step 1") || !strings.Contains(out, "step slow") || !strings.Contains(out, "step bus") {
		t.Errorf("after a kill:\n%s", out)
	}
	ran := func(want string) {
		t.Helper()
		if out := h.ok(t, "exec", "-u", "root", "web", "--", "cat", "/root/ran", "/home/ada/ran"); out != want {
			t.Errorf("what was run is %q, want %q", out, want)
		}
	}
	ran("boot\nsystem\nslow\nada")
	if out := h.ok(t, "exec", "web", "--", "sh", "-c", `cat /etc/motd ~/.config/dot; stat -c '%a %U' ~/.config/dot`); out != "it's $HOME {{here}}\ndots\r\n600 ada" {
		t.Errorf("the files are %q", out)
	}
	if out := h.ok(t, "up"); out != "nothing to do" {
		t.Errorf("a second run: %s", out)
	}

	// A start runs the steps of a start, whoever starts the distro; all else is done, also where
	// the power was cut.
	h.ok(t, "shutdown", "--force")
	ran("boot\nsystem\nslow\nboot\nada")
	for deadline := time.Now().Add(slow); h.ok(t, "exec", "-u", "root", "web", "--", "cat", "/root/ready") != "ready\nready"; {
		if time.Now().After(deadline) {
			t.Fatalf("the ready step does not run: %s", h.ok(t, "logs", "--provision", "web"))
		}
		time.Sleep(100 * time.Millisecond)
	}
	h.ok(t, "up")
	ran("boot\nsystem\nslow\nboot\nada")
	h.ok(t, "wait", "--timeout", "1m", "web")
	if log := h.ok(t, "logs", "--provision", "web"); strings.Count(log, "web: step at boot done") != 2 || !strings.Contains(log, "web: step bus done") {
		t.Errorf("the log of provisioning:\n%s", log)
	}

	// What leaves the file is told of, and removed when that is asked for.
	write("lsub.yaml", "distros: {web: {image: debian, user: ada}}\n")
	if out := h.ok(t, "up", "-f", file); !strings.Contains(out, "file /etc/motd left the file") || !strings.Contains(out, "file ~/.config/dot left the file") {
		t.Errorf("files left: %s", out)
	}
	h.ok(t, "up", "--prune", "--yes")
	if r := h.run("exec", "web", "--", "sh", "-c", "ls /etc/motd ~/.config/dot"); r.code == 0 {
		t.Errorf("the files are still there: %s", r)
	}
	if r := h.run("run", "--rm", "web", "--", "sh", "-c", "cat ~/ran; exit 9"); r.code != 9 || r.out != "ada\n" {
		t.Errorf("run --rm: %s", r)
	}
	// A distro that keeps its steps goes on from the one before that which has changed.
	steps := func(last string) string {
		return "distros: {web: {image: debian, user: ada, cache: true, provision: [echo 1 > /root/kept, echo 2 >> /root/kept, '" + last + "']}}\n"
	}
	write("lsub.yaml", steps("echo 3 >> /root/kept"))
	h.ok(t, "up", "-f", file)
	write("lsub.yaml", steps("echo three >> /root/kept"))
	if out := h.ok(t, "up", "-f", file, "--yes"); !strings.Contains(out, "go back to how it was after step 2") || strings.Contains(out, "web: step 1") {
		t.Errorf("a step that changed: %s", out)
	}
	if out := h.ok(t, "exec", "-u", "root", "web", "--", "cat", "/root/kept"); out != "1\n2\nthree" {
		t.Errorf("what the steps did is %q", out)
	}
	write("lsub.yaml", "# nothing\n")
	h.ok(t, "up", "-f", file, "--prune", "--yes")
	if out := h.ok(t, "list", "-q"); out != "" {
		t.Errorf("distros are left: %s", out)
	}
}
