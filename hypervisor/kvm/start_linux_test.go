package kvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// script makes a program that stands in for QEMU.
func script(t *testing.T, body string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "qemu-system-test")
	if err := os.WriteFile(file, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return file
}

// scriptConfig is a configuration that passes all checks except QEMU's own.
func scriptConfig(t *testing.T) hypervisor.Config {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("the kernel of this test is one for amd64")
	}
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, vmlinux(18), 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Config{
		Name: "test", Dir: dir, Kernel: kernel, CPUs: 1, Memory: hypervisor.MinMemory,
		Console: filepath.Join(dir, "console"), Logger: testLogger(t),
		NIC: &hypervisor.NIC{
			MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500,
			Serve: func(ctx context.Context, c net.Conn, _ virtionet.Framing) error {
				_, err := io.Copy(io.Discard, c)
				return err
			},
		},
	}
}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// noLeak checks at the test's end that no file descriptor, child process or goroutine of this
// package is left. Tests that use it do not run in parallel.
func noLeak(t *testing.T) {
	t.Helper()
	// Go's own poller opens its files at first use.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
	before := openFiles(t)
	t.Cleanup(func() {
		if after := openFiles(t); len(after) > len(before) {
			t.Errorf("%d files are open, %d were: %v", len(after), len(before), after)
		}
		if kids, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid())); err == nil && len(kids) > 0 {
			t.Errorf("children are left: %s", kids)
		}
		// Goroutines that were waited for may still be about to return.
		deadline := time.Now().Add(10 * time.Second)
		for {
			stacks := goroutines()
			if stacks == "" {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("goroutines are left:\n%s", stacks)
				return
			}
			runtime.Gosched()
		}
	})
}

func openFiles(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.HasPrefix(to, "/proc/") {
			files = append(files, e.Name()+" "+to)
		}
	}
	return files
}

// goroutines returns the stacks of the goroutines that this package started.
func goroutines() string {
	buf := make([]byte, 1<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var left []string
	for _, s := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(s, "hypervisor/kvm") && !strings.Contains(s, "testing.tRunner") && !strings.Contains(s, "testing.(*M)") {
			left = append(left, s)
		}
	}
	return strings.Join(left, "\n\n")
}

func TestStartFails(t *testing.T) {
	const version = `case "$1" in -version) echo "QEMU emulator version 9.1.0"; exit;; esac` + "\n"
	for _, c := range []struct {
		name, qemu string
		change     func(*hypervisor.Config)
		want, hint string
	}{
		{"too old", `case "$1" in -version) echo "QEMU emulator version 6.2.0"; exit;; esac; echo "Parameter 'type' does not accept value 'stream'" >&2; exit 1`, nil, "is version 6.2.0; lsub needs 7.2", "upgrade"},
		{"QEMU complains", version + `echo "qemu-system-x86_64: cannot set up guest memory 'ram': Cannot allocate memory" >&2; exit 1`, nil, "exit status 1: not enough memory: cannot set up", "less memory"},
		{"QEMU is killed", version + `kill -9 $$`, nil, "was killed by signal 9", "journalctl"},
		{"QEMU just ends", version + `exit 0`, nil, "has ended by itself", ""},
		{"no program", "", func(c *hypervisor.Config) {}, "QEMU is missing", "apt install"},
		{"no kernel", version, func(c *hypervisor.Config) { c.Kernel += "x" }, "no such file", ""},
		{"no initrd", version, func(c *hypervisor.Config) { c.Initrd = c.Kernel + "x" }, "initrd: open", ""},
		{"no directory for the console", version, func(c *hypervisor.Config) { c.Console = c.Dir + "/x/y" }, "console: open", ""},
		{"no directory for sockets", version + "exec sleep 60", func(c *hypervisor.Config) { c.Dir += "/missing" }, ".sock", ""},
	} {
		for _, attach := range []func(virtionet.Card) virtionet.Receiver{nil, newWire(t).attach} {
			t.Run(fmt.Sprintf("%s, card %v", c.name, attach != nil), func(t *testing.T) {
				noLeak(t)
				cfg := scriptConfig(t)
				cfg.NIC.Attach = attach
				if c.change != nil {
					c.change(&cfg)
				}
				qemu := filepath.Join(t.TempDir(), "missing")
				if c.qemu != "" {
					qemu = script(t, c.qemu)
				}
				_, err := New(Options{Accel: AccelTCG, VSock: VSockUser, QEMU: qemu}).Start(t.Context(), cfg)
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Start: %v, want an error with %q", err, c.want)
				}
				if !strings.Contains(hint.Of(err), c.hint) {
					t.Errorf("the hint is %q, want one with %q", hint.Of(err), c.hint)
				}
				if left, _ := filepath.Glob(cfg.Dir + "/*.sock"); len(left) > 0 {
					t.Errorf("sockets are left: %v", left)
				}
			})
		}
	}
}

// TestStartSilent has a QEMU that lives but sends nothing.
func TestStartSilent(t *testing.T) {
	noLeak(t)
	cfg := scriptConfig(t)
	pid := filepath.Join(cfg.Dir, "pid")
	d := New(Options{Accel: AccelTCG, VSock: VSockUser, QEMU: script(t, "echo $$ >"+pid+"; exec sleep 600")})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := d.Start(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v, want %v", err, context.DeadlineExceeded)
	}
	text, err := os.ReadFile(pid)
	if err != nil {
		return // it was killed before it could write
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(fmt.Sprint("/proc/", n)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("QEMU (process %d) is left: %v", n, err)
	}
}

func TestVersionIsKept(t *testing.T) {
	d := New(Options{})
	qemu := script(t, `echo x >>"$0.log"; echo "QEMU emulator version 9.1.0"`)
	for range 3 {
		if err := d.checkVersion(t.Context(), qemu); err != nil {
			t.Fatal(err)
		}
	}
	if log, err := os.ReadFile(qemu + ".log"); err != nil || string(log) != "x\n" {
		t.Errorf("QEMU was asked %q times, %v", log, err)
	}
	if err := os.WriteFile(qemu, []byte("#!/bin/sh\necho QEMU emulator version 6.0.0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.checkVersion(t.Context(), qemu); err == nil {
		t.Error("a program that has changed was not asked again")
	}
}

func TestCgroupLimit(t *testing.T) {
	root := t.TempDir()
	self := filepath.Join(root, "self")
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(self, "1:name=systemd:/x\n0::/user.slice/a/b\n")
	if got := cgroupLimit(root, self); got != 0 {
		t.Errorf("no limit: %d", got)
	}
	write(root+"/user.slice/a/memory.max", "1073741824\n")
	write(root+"/user.slice/a/b/memory.max", "max\n")
	write(root+"/user.slice/memory.max", "4294967296\n")
	if got := cgroupLimit(root, self); got != 1<<30 {
		t.Errorf("got %d, want %d", got, 1<<30)
	}
}

// TestExamine has no QEMU, one that is too old, and KVM where there is none.
func TestExamine(t *testing.T) {
	find := func(d *Driver, name string) hypervisor.Requirement {
		t.Helper()
		for _, r := range d.Examine(t.Context()) {
			if r.Name == name {
				return r
			}
		}
		t.Fatalf("%s is no requirement", name)
		return hypervisor.Requirement{}
	}
	missing := New(Options{QEMU: filepath.Join(t.TempDir(), "missing")})
	if r := find(missing, "QEMU"); r.Err == nil || r.Optional || !strings.Contains(hint.Of(r.Err), "apt install") {
		t.Errorf("without QEMU: %+v", r)
	}
	old := New(Options{QEMU: script(t, `echo "QEMU emulator version 6.2.0"`)})
	if r := find(old, "QEMU"); r.Err == nil || hint.Of(r.Err) == "" || !strings.HasPrefix(r.Found, "6.2.0, ") {
		t.Errorf("with an old QEMU: %+v", r)
	}
	if r := find(New(Options{Accel: AccelTCG}), "KVM"); r.Err != nil {
		t.Errorf("where KVM is not asked for: %+v", r)
	}
	forced, auto := find(New(Options{Accel: AccelKVM}), "KVM"), find(New(Options{}), "KVM")
	if (forced.Err == nil) != (auto.Err == nil) || forced.Optional || !auto.Optional {
		t.Errorf("KVM as wished: %+v, as asked for: %+v", auto, forced)
	}
	if r := find(New(Options{}), "memory"); r.Found == "" {
		t.Errorf("memory: %+v", r)
	}
}
