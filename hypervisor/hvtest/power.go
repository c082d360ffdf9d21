package hvtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

// testPause halts a VM, if that is offered.
func testPause(t *testing.T, h Harness) {
	vm, ready := h.Boot(t, h.testConfig(t))
	p, ok := vm.(hypervisor.Pauser)
	if !ok {
		t.Skip("the driver's VMs cannot be paused")
	}
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	for range 2 { // twice: a paused VM stays so
		if err := p.Pause(ctx); err != nil {
			t.Fatalf("Pause: %v", err)
		}
	}
	if s, ok := vm.(hypervisor.Paused); ok && !errors.Is(s.Paused(), hypervisor.ErrPaused) {
		t.Errorf("Paused: %v, want %v", s.Paused(), hypervisor.ErrPaused)
	}
	short, stop := context.WithTimeout(ctx, 100*time.Millisecond)
	if c, err := vm.Dial(short, protocol.EchoPort); err == nil {
		c.Close()
		t.Error("a paused guest has answered")
	} else if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial of a paused VM: %v, want %v", err, context.DeadlineExceeded)
	}
	stop()
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() {
		c, err := vm.Dial(ctx, protocol.EchoPort)
		dialed <- result{c, err}
	}()
	for range 2 {
		if err := p.Resume(ctx); err != nil {
			t.Fatalf("Resume: %v", err)
		}
	}
	if s, ok := vm.(hypervisor.Paused); ok && s.Paused() != nil {
		t.Errorf("Paused: %v of a VM that goes on", s.Paused())
	}
	var r result
	h.Within(t, "the dial that the pause has held up", func() { r = <-dialed })
	if r.err != nil {
		t.Fatalf("Dial during a pause: %v", r.err)
	}
	defer r.conn.Close()
	h.Echo(t, r.conn, 100_000)
	h.Echo(t, ready, 100_000) // from before the pause

	if err := p.Pause(ctx); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	var err error
	h.Within(t, "Close of a paused VM", func() { err = vm.Close() })
	if err != nil {
		t.Errorf("Close of a paused VM: %v", err)
	}
	if err := vm.Wait(); err != nil {
		t.Errorf("Wait: %v", err)
	}
	if err := p.Pause(ctx); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Pause of a VM that is off: %v, want %v", err, net.ErrClosed)
	}
	if err := p.Resume(ctx); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Resume of a VM that is off: %v, want %v", err, net.ErrClosed)
	}
}

// testSave saves a VM and goes on with it in another, if that is offered.
func testSave(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	vm, _ := h.Boot(t, cfg)
	s, ok := vm.(hypervisor.Saver)
	if !ok {
		t.Skip("the driver's VMs cannot be saved")
	}
	p, driver := vm.(hypervisor.Pauser), h.Driver.(hypervisor.Restorer)
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	path := filepath.Join(t.TempDir(), "state")
	if err := s.Save(ctx, path); err == nil {
		t.Error("a VM that runs was saved")
	}
	id := h.Control(t, vm, "boot")
	if err := p.Pause(ctx); err != nil {
		t.Fatalf("Pause: %v", err)
	}
	if err := s.Save(ctx, path); err != nil {
		t.Fatalf("Save: %v", err)
	}
	if err := vm.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	vm, err := driver.Restore(ctx, cfg, path)
	if err != nil {
		t.Fatalf("Restore: %v", err)
	}
	t.Cleanup(func() { vm.Close() })
	if s, ok := vm.(hypervisor.Paused); ok && !errors.Is(s.Paused(), hypervisor.ErrPaused) {
		t.Errorf("Paused: %v of a restored VM, want %v", s.Paused(), hypervisor.ErrPaused)
	}
	if err := vm.(hypervisor.Pauser).Resume(ctx); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	if got := h.Control(t, vm, "boot"); got != id {
		t.Errorf("the restored VM has booted as %s, the saved one as %s", got, id)
	}
	h.PowerOff(t, vm)
	h.Within(t, "the power-off", func() { err = vm.Wait() })
	if err != nil {
		t.Errorf("Wait: %v", err)
	}
	if _, err := driver.Restore(ctx, cfg, filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Restore of a state that does not exist: %v, want %v", err, fs.ErrNotExist)
	}
}

// testBalloon takes memory from the guest, if that is offered.
func testBalloon(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	vm, _ := h.Boot(t, cfg)
	b, ok := vm.(hypervisor.Balloon)
	if !ok {
		t.Skip("the driver's VMs have no balloon")
	}
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	const take = 16 << 20
	if err := b.SetMemory(ctx, cfg.Memory-take); err != nil {
		t.Fatalf("SetMemory: %v", err)
	}
	h.Control(t, vm, fmt.Sprintf("balloon %d", take))
	if err := b.SetMemory(ctx, cfg.Memory); err != nil {
		t.Errorf("SetMemory to all of it: %v", err)
	}
	for _, size := range []int64{-1, 0, cfg.Memory + 1<<20} {
		if err := b.SetMemory(ctx, size); err == nil {
			t.Errorf("SetMemory has taken %d of %d bytes", size, cfg.Memory)
		}
	}
}

// testKilled kills the hypervisor of one VM, and not that of another.
func testKilled(t *testing.T, h Harness) {
	if h.Kill == nil {
		t.Skip("the harness cannot kill the hypervisor")
	}
	vm, ready := h.Boot(t, h.testConfig(t))
	other, stays := h.Boot(t, h.testConfig(t))
	h.Kill(t, vm)
	var err error
	h.Within(t, "the VM's end", func() { err = vm.Wait() })
	if err == nil {
		t.Error("Wait does not say that the VM has died")
	}
	t.Logf("Wait: %v", err)
	if _, err := ready.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived its VM")
	}
	if _, err := vm.Dial(t.Context(), protocol.EchoPort); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v, want %v", err, net.ErrClosed)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close of a VM that was killed: %v", err)
	}
	if err := vm.Wait(); err == nil {
		t.Error("Wait has forgotten after Close how the VM ended")
	}
	h.Echo(t, stays, 100_000)
	if err := other.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// testTwoVMs runs two VMs at once.
func testTwoVMs(t *testing.T, h Harness) {
	first, _ := h.Boot(t, h.testConfig(t))
	second, ready := h.Boot(t, h.testConfig(t))
	for _, vm := range []hypervisor.VM{first, second} {
		c := h.Dial(t, vm, protocol.EchoPort)
		h.Echo(t, c, 100_000)
		c.Close()
	}
	if err := first.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	h.Echo(t, ready, 100_000) // which the end of the first has left alone
	h.PowerOff(t, second)
	h.Within(t, "the power-off", func() {
		if err := second.Wait(); err != nil {
			t.Errorf("Wait: %v", err)
		}
	})
}
