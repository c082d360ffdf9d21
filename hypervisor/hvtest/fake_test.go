package hvtest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/nettest"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/virtionet"
)

func config(t *testing.T) hypervisor.Config {
	t.Helper()
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, []byte("a kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Config{
		Name: "test", Dir: dir, Kernel: kernel, CPUs: 1,
		Memory: hypervisor.MinMemory, Console: filepath.Join(dir, "console"),
	}
}

func start(t *testing.T, f *hvtest.Fake, cfg hypervisor.Config) *hvtest.VM {
	t.Helper()
	vm, err := f.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	return vm.(*hvtest.VM)
}

// TestFakeConn runs Go's own conformance tests of net.Conn over a fake stream.
func TestFakeConn(t *testing.T) {
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		ends := make(chan net.Conn)
		f := &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
			if err := g.AwaitHost(1); err != nil {
				return err
			}
			c, err := g.Dial(1)
			if err != nil {
				return err
			}
			ends <- c
			<-g.Context().Done()
			return nil
		}}
		vm := start(t, f, config(t))
		l, err := vm.Listen(t.Context(), 1)
		if err != nil {
			return nil, nil, nil, err
		}
		c1, err = l.Accept()
		return c1, <-ends, func() { vm.Close() }, err
	})
}

func TestFakeDies(t *testing.T) {
	f := &hvtest.Fake{}
	vm := start(t, f, config(t))
	l, err := vm.Listen(t.Context(), 8)
	if err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept() // the guest is up
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("the host is on fire")
	vm.Die(why)
	if err := vm.Wait(); !errors.Is(err, why) {
		t.Errorf("Wait = %v, want %v", err, why)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a stream outlived its VM")
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want %v", err, net.ErrClosed)
	}
	if len(f.VMs()) != 1 {
		t.Errorf("%d VMs, want 1", len(f.VMs()))
	}
}

func TestFakeGuestFails(t *testing.T) {
	why := errors.New("kernel panic")
	vm := start(t, &hvtest.Fake{Guest: func(*hvtest.Guest) error { return why }}, config(t))
	if err := vm.Wait(); !errors.Is(err, why) {
		t.Errorf("Wait = %v, want %v", err, why)
	}
}

func TestFakeNeverUp(t *testing.T) {
	vm := start(t, &hvtest.Fake{NeverUp: true}, config(t))
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := vm.Dial(ctx, 7); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial = %v, want %v", err, context.DeadlineExceeded)
	}
}

func TestFakePaused(t *testing.T) {
	up := make(chan struct{})
	vm := start(t, &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
		if _, err := g.Listen(7); err != nil {
			return err
		}
		close(up)
		<-g.Context().Done()
		return nil
	}}, config(t))
	<-up
	full := errors.New("the host's disk is full")
	vm.SetPaused(full)
	if err := vm.Paused(); err != full {
		t.Errorf("Paused = %v, want %v", err, full)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := vm.Dial(ctx, 7); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial to a halted VM = %v, want %v", err, context.DeadlineExceeded)
	}
	dialled := make(chan error)
	go func() {
		_, err := vm.Dial(t.Context(), 7)
		dialled <- err
	}()
	vm.SetPaused(nil)
	if err := <-dialled; err != nil {
		t.Errorf("Dial after the pause = %v", err)
	}
	if err := vm.Paused(); err != nil {
		t.Errorf("Paused = %v after the pause", err)
	}
}

func TestFakeNIC(t *testing.T) {
	cfg := config(t)
	served := make(chan struct{})
	cfg.NIC = &hypervisor.NIC{
		MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500,
		Serve: func(ctx context.Context, c net.Conn, f virtionet.Framing) error {
			defer close(served)
			_, err := io.Copy(c, c)
			return err
		},
	}
	answer := make(chan string, 1)
	vm := start(t, &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
		b := make([]byte, 5)
		g.NIC().Write([]byte("frame"))
		_, err := io.ReadFull(g.NIC(), b)
		answer <- string(b)
		return err
	}}, cfg)
	if got := <-answer; got != "frame" {
		t.Errorf("the network answered %q", got)
	}
	if err := vm.Wait(); err != nil {
		t.Error(err)
	}
	<-served
}

func TestFakeStartErr(t *testing.T) {
	why := errors.New("no hypervisor")
	if _, err := (&hvtest.Fake{StartErr: why}).Start(t.Context(), config(t)); !errors.Is(err, why) {
		t.Errorf("Start = %v, want %v", err, why)
	}
	if err := (&hvtest.Fake{CheckErr: why}).Check(t.Context()); err != why {
		t.Errorf("Check = %v, want %v", err, why)
	}
}

func TestConformance(t *testing.T) {
	kill := func(_ *testing.T, vm hypervisor.VM) { vm.(*hvtest.VM).Die(errors.New("killed")) }
	for name, driver := range map[string]hypervisor.Driver{
		"Stream":   &hvtest.Fake{},
		"Datagram": &hvtest.Fake{Framing: virtionet.Datagram},
		"Cardless": &hvtest.CardlessFake{},
	} {
		t.Run(name, func(t *testing.T) {
			hvtest.Conformance(t, hvtest.Harness{Driver: driver, Config: config, Kill: kill})
		})
	}
}
