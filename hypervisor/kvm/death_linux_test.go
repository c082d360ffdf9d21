package kvm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

// helperEnv makes the test program start a VM with the helperConfig in its value, print
// QEMU's process number, and wait to be killed.
const helperEnv = "LSUB_TEST_KVM_HELPER"

type helperConfig struct{ Dir, Kernel, Initrd, Console string }

func helper() {
	var c helperConfig
	err := json.Unmarshal([]byte(os.Getenv(helperEnv)), &c)
	if err == nil {
		var v hypervisor.VM
		v, err = New(Options{}).Start(context.Background(), hypervisor.Config{
			Name: "helper", Dir: c.Dir, Kernel: c.Kernel, Initrd: c.Initrd, Console: c.Console,
			CPUs: 1, Memory: hypervisor.MinMemory,
		})
		if err == nil {
			fmt.Println(v.(*vm).qemu.cmd.Process.Pid)
			err = v.Wait()
		}
	}
	fmt.Println("helper:", err)
	os.Exit(1)
}

// TestDiesWithSupervisor kills, with SIGKILL, the process that started a VM.
func TestDiesWithSupervisor(t *testing.T) {
	cfg := config(t)
	text, err := json.Marshal(helperConfig{cfg.Dir, cfg.Kernel, cfg.Initrd, cfg.Console})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), helperEnv+"="+string(text))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the helper said %q", line)
	}
	qemu, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(qemu)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	// A pidfd becomes readable when its process ends.
	fds := []unix.PollFd{{Fd: int32(qemu), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int((30 * time.Second).Milliseconds()))
	for err == unix.EINTR {
		n, err = unix.Poll(fds, int((30 * time.Second).Milliseconds()))
	}
	if n != 1 || err != nil {
		unix.PidfdSendSignal(qemu, unix.SIGKILL, nil, 0)
		t.Fatalf("QEMU has outlived the process that started it (%d, %v)", n, err)
	}
}

// TestQEMUKilled kills a VM's QEMU.
func TestQEMUKilled(t *testing.T) {
	noLeak(t)
	h := harness()
	cfg := config(t)
	cfg.NIC = &hypervisor.NIC{
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, MTU: 1500, Attach: newWire(t).attach, Serve: notServed(t),
	}
	v, ready := h.Boot(t, cfg)
	if err := v.(*vm).qemu.cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := v.Wait(); err == nil || !strings.Contains(err.Error(), "signal 9") {
		t.Errorf("Wait: %v", err)
	}
	if _, err := ready.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived its VM")
	}
	if err := v.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := v.Wait(); err == nil {
		t.Error("Wait has forgotten after Close how the VM ended")
	}
}

// TestGuestPanics crashes the guest's kernel.
func TestGuestPanics(t *testing.T) {
	h := harness()
	cfg := config(t)
	v, _ := h.Boot(t, cfg)
	c := h.Dial(t, v, protocol.ControlPort)
	defer c.Close()
	fmt.Fprintln(c, "panic")
	var err error
	h.Within(t, "the crash", func() { err = v.Wait() })
	if err == nil || !strings.Contains(err.Error(), "crashed") {
		t.Errorf("Wait: %v", err)
	}
	console, err := os.ReadFile(cfg.Console)
	if err != nil || !strings.Contains(string(console), "Kernel panic") {
		t.Errorf("the console: %s, %v", console, err)
	}
}

// heard is a log handler that signals when a message is logged.
type heard struct {
	slog.Handler
	mu   sync.Mutex
	want map[string]chan struct{}
}

func (h *heard) expect(message string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := make(chan struct{})
	h.want[message] = ch
	return ch
}

func (h *heard) Handle(ctx context.Context, r slog.Record) error {
	h.mu.Lock()
	for message, ch := range h.want {
		if strings.Contains(r.Message, message) {
			close(ch)
			delete(h.want, message)
		}
	}
	h.mu.Unlock()
	return h.Handler.Handle(ctx, r)
}

func (h *heard) WithAttrs(a []slog.Attr) slog.Handler { return h }

// TestHostDiskFull fills the file system below a disk. The VM waits, and continues once there
// is room. The guest notices nothing.
func TestHostDiskFull(t *testing.T) {
	needVM(t)
	if os.Getuid() != 0 {
		t.Skip("only root may mount the small file system that this test fills")
	}
	small := t.TempDir()
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=48m"); err != nil {
		t.Skipf("a small file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(small, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	cfg := config(t)
	log := &heard{Handler: cfg.Logger.Handler(), want: map[string]chan struct{}{}}
	cfg.Logger = slog.New(log)
	path := filepath.Join(small, "data.img")
	disk(t, path, 256<<20)
	cfg.Disks = []hypervisor.Disk{{Path: path, Serial: "data"}}

	h := harness()
	paused, resumed := log.expect("the VM is paused"), log.expect("the VM goes on")
	v, _ := h.Boot(t, cfg)
	state := v.(hypervisor.Paused)
	if err := state.Paused(); err != nil {
		t.Errorf("Paused: %v", err)
	}
	written := make(chan string, 1)
	go func() { written <- h.Control(t, v, "write data 96") }()
	h.Within(t, "the VM to halt", func() { <-paused })
	err := state.Paused()
	if err == nil || !strings.Contains(err.Error(), "the host's disk is full") || !strings.Contains(err.Error(), path) {
		t.Errorf("Paused: %v", err)
	}
	// Its owner pauses it too, and lets it go on: it tries its write, and halts again.
	paused = log.expect("the VM is paused")
	p := v.(hypervisor.Pauser)
	if err := p.Pause(t.Context()); err != nil {
		t.Errorf("Pause: %v", err)
	}
	if err := p.Resume(t.Context()); err != nil {
		t.Errorf("Resume: %v", err)
	}
	h.Within(t, "the VM to halt again", func() { <-paused })
	resumed = log.expect("the VM goes on")
	if err := unix.Mount("", small, "", unix.MS_REMOUNT, "size=512m"); err != nil {
		t.Fatal(err)
	}
	h.Within(t, "the VM to go on", func() { <-resumed })
	h.Within(t, "the guest's write", func() { <-written })
	if err := state.Paused(); err != nil {
		t.Errorf("Paused after there is room: %v", err)
	}
	if n := allocated(t, path); n < 96<<20 {
		t.Errorf("%d bytes of the disk are on the host, 96 MiB were written", n)
	}
}
