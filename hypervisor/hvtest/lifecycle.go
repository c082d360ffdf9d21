package hvtest

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

func testBoot(t *testing.T, h Harness) {
	vm, ready := h.Boot(t, h.testConfig(t))
	if n := h.Driver.Name(); n == "" || n != strings.ToLower(n) {
		t.Errorf("the driver's name is %q", n)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := vm.Wait(); err != nil {
		t.Errorf("Wait after Close: %v", err)
	}
	if _, err := ready.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived its VM")
	}
}

func testDialEcho(t *testing.T, h Harness) {
	vm, _ := h.Boot(t, h.testConfig(t))
	var all sync.WaitGroup
	for _, size := range []int{0, 1, 4096, 1 << 20, 100_001} {
		all.Go(func() {
			c := h.Dial(t, vm, protocol.EchoPort)
			defer c.Close()
			h.Echo(t, c, size)
		})
	}
	all.Wait()

	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	_, err := vm.Dial(ctx, 4711)
	if !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Dial to a port without listener: %v, want connection refused or reset", err)
	}
	cancel()
	if _, err := vm.Dial(ctx, protocol.EchoPort); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial with a context that is done: %v, want %v", err, context.Canceled)
	}
}

func testListenEcho(t *testing.T, h Harness) {
	vm, ready := h.Boot(t, h.testConfig(t))
	h.Echo(t, ready, 300_000)

	// Boot has closed its listener; the port is free again.
	l, err := vm.Listen(t.Context(), protocol.ReadyPort)
	if err != nil {
		t.Fatalf("Listen on a port that is free again: %v", err)
	}
	if l2, err := vm.Listen(t.Context(), protocol.ReadyPort); err == nil {
		l2.Close()
		t.Error("two listeners have the same port")
	}
	accepted := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	l.Close()
	h.Within(t, "Accept after Close", func() { err = <-accepted })
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept on a closed listener: %v, want %v", err, net.ErrClosed)
	}
}

func testWaitAfterPoweroff(t *testing.T, h Harness) {
	vm, _ := h.Boot(t, h.testConfig(t))
	h.PowerOff(t, vm)
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := vm.Wait(); err != nil {
				t.Errorf("Wait after the guest's power-off: %v", err)
			}
		})
	}
	h.Within(t, "the power-off", all.Wait)
	if err := vm.Close(); err != nil {
		t.Errorf("Close of a VM that is off: %v", err)
	}
}

func testCloseTwice(t *testing.T, h Harness) {
	vm, _ := h.Boot(t, h.testConfig(t))
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if err := vm.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	h.Within(t, "Close", all.Wait)
	if err := vm.Close(); err != nil {
		t.Errorf("Close of a closed VM: %v", err)
	}
}

// testCloseUnblocksWait closes a VM whose guest has not booted yet.
func testCloseUnblocksWait(t *testing.T, h Harness) {
	vm := h.start(t, h.testConfig(t))
	l, err := vm.Listen(t.Context(), 4711)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	waited, accepted := make(chan error, 1), make(chan error, 1)
	go func() { waited <- vm.Wait() }()
	go func() {
		_, err := l.Accept()
		accepted <- err
	}()
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	h.Within(t, "Wait after Close", func() { err = <-waited })
	if err != nil {
		t.Errorf("Wait: %v", err)
	}
	h.Within(t, "Accept after Close", func() { err = <-accepted })
	if !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v, want %v", err, net.ErrClosed)
	}
}

func testDialAfterClose(t *testing.T, h Harness) {
	vm := h.start(t, h.testConfig(t))
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if _, err := vm.Dial(t.Context(), protocol.EchoPort); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial: %v, want %v", err, net.ErrClosed)
	}
	if _, err := vm.Listen(t.Context(), protocol.ReadyPort); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Listen: %v, want %v", err, net.ErrClosed)
	}
}

func testStartCancelled(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if vm, err := h.Driver.Start(ctx, cfg); err == nil {
		vm.Close()
		t.Error("Start with a context that is done has started a VM")
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a context that is done: %v, want %v", err, context.Canceled)
	}

	// A cancellation during a start either wins or is too late.
	ctx, cancel = context.WithCancel(t.Context())
	go cancel()
	if vm, err := h.Driver.Start(ctx, cfg); err == nil {
		if err := vm.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	} else if !errors.Is(err, context.Canceled) {
		t.Errorf("Start while its context ends: %v, want %v", err, context.Canceled)
	}

	// The next start is not affected.
	vm := h.start(t, cfg)
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func testConsoleLog(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	vm, _ := h.Boot(t, cfg)
	h.PowerOff(t, vm)
	h.Within(t, "the power-off", func() { vm.Wait() })
	console, err := os.ReadFile(cfg.Console)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(console), protocol.UpLine) {
		t.Errorf("the console lacks %q:\n%s", protocol.UpLine, console)
	}
	if strings.Contains(string(console), "of an earlier VM") {
		t.Errorf("the console's file was not truncated:\n%s", console)
	}
}

// start starts a VM. It does not wait for its guest.
func (h Harness) start(t *testing.T, cfg hypervisor.Config) hypervisor.VM {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	vm, err := h.Driver.Start(ctx, cfg)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	t.Cleanup(func() { vm.Close() })
	return vm
}
