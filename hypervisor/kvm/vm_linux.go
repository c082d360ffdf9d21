package kvm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/virtionet"
)

// quitTimeout bounds QEMU's shutdown; then it is killed.
const quitTimeout = 3 * time.Second

// vm is a VM in a QEMU.
type vm struct {
	cfg     *hypervisor.Config
	log     *slog.Logger
	accel   Accel
	vsock   vsockBackend
	nic     net.Conn          // our end of the network card's frames; nil for none
	framing virtionet.Framing // of nic
	card    *card             // the network card itself, in place of nic; nil for none
	qemu    *process
	mon     *monitor

	alive context.Context // done when the VM ends or Close begins
	end   context.CancelFunc
	wg    sync.WaitGroup // goroutines other than run
	pause pause
	fs    fileSystems
	done  chan struct{} // closed when everything has ended

	closeOnce sync.Once

	mu     sync.Mutex
	closed bool   // Close was called
	reason string // of the event SHUTDOWN
	err    error  // of Wait; read it after done
}

func newVM(cfg *hypervisor.Config, log *slog.Logger) *vm {
	v := &vm{cfg: cfg, log: log, done: make(chan struct{})}
	v.alive, v.end = context.WithCancel(context.Background())
	v.pause.init(v)
	v.fs.init(v)
	return v
}

// begin takes a VM from a newly started QEMU to running processors.
func (v *vm) begin(ctx context.Context, conn net.Conn) error {
	mon, err := openMonitor(ctx, conn, v.cfg.Dir, v.onEvent, v.log)
	if err == nil {
		v.mon = mon
		err = mon.run(ctx, "cont", nil)
	}
	if err != nil {
		return v.startFailure(ctx, err)
	}
	v.log.Debug("the VM runs", "qemu", mon.qemu, "pid", v.qemu.cmd.Process.Pid)
	if v.nic != nil {
		v.wg.Go(v.serveNIC)
	}
	v.wg.Go(v.pause.watch)
	go v.run()
	return nil
}

// startFailure finds out why QEMU sent no greeting. Most often it has ended with an error
// message.
func (v *vm) startFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if errors.Is(err, errNoSocket) {
		return err
	}
	select {
	case <-v.qemu.done:
	case <-ctx.Done():
	case <-time.After(quitTimeout): // it lives but does not speak QMP
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if why := v.qemu.failure(); why != nil {
		return why
	}
	return fmt.Errorf("QEMU has ended by itself: %w", err)
}

// abandon ends a VM whose start has failed, and waits for all of it.
func (v *vm) abandon() {
	v.end()
	if v.qemu != nil {
		v.qemu.kill()
	}
	v.release()
}

// run waits for QEMU's end and cleans up after it.
func (v *vm) run() {
	<-v.qemu.done
	v.end()
	v.release()
	v.err = v.verdict()
	if v.err != nil {
		v.log.Error("the VM has died", "err", v.err)
	}
	close(v.done)
}

// release closes the resources of a QEMU that has ended.
func (v *vm) release() {
	if v.mon != nil {
		v.mon.wait() // QEMU's last events included
	}
	if v.nic != nil {
		v.nic.Close()
	}
	if v.card != nil {
		v.card.Close()
	}
	if v.vsock != nil {
		v.vsock.Close()
	}
	v.fs.close()
	v.wg.Wait()
}

// verdict is the result of Wait.
func (v *vm) verdict() error {
	v.mu.Lock()
	closed, reason := v.closed, v.reason
	v.mu.Unlock()
	if closed {
		return nil
	}
	if err := v.qemu.failure(); err != nil {
		return fmt.Errorf("VM %s: %w", v.cfg.Name, err)
	}
	switch reason {
	case "guest-reset", "guest-panic":
		return fmt.Errorf("VM %s: %w (%s); its console is in %s", v.cfg.Name, hypervisor.ErrGuestCrashed, reason, v.cfg.Console)
	case "", "guest-shutdown":
		return nil
	}
	return hint.New(fmt.Errorf("VM %s: QEMU was ended from outside (%s)", v.cfg.Name, reason), "the next command starts the VM again")
}

// serveNIC passes the network card's frames to the network as long as the VM lives.
func (v *vm) serveNIC() {
	defer v.nic.Close()
	err := v.cfg.NIC.Serve(v.alive, v.nic, v.framing)
	if v.alive.Err() != nil {
		return
	}
	select {
	case <-v.qemu.done: // which ended the stream of frames
	case <-time.After(quitTimeout):
		v.log.Error("the network of the VM has failed; it is cut off", "err", err)
	case <-v.alive.Done():
	}
}

// Description returns QEMU's version and the accelerator.
func (v *vm) Description() string { return describe(v.mon.qemu, v.accel) }

// onEvent handles QEMU's events, one after the other. It does not block.
func (v *vm) onEvent(e qmp.Event) {
	v.log.Debug("event of QEMU", "event", e.Event, "data", e.Data)
	if s, ok := decodeShutdown(e); ok {
		v.mu.Lock()
		v.reason = s.reason
		v.mu.Unlock()
	}
	v.pause.onEvent(e)
	v.fs.onEvent(e)
}

// Dial opens a stream to a port of the guest.
func (v *vm) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	if err := v.usable(ctx, "dial", port); err != nil {
		return nil, err
	}
	c, err := v.vsock.Dial(ctx, port)
	if err == nil {
		return c, nil
	}
	// It is random which goroutine sees the VM's end first.
	if gone := v.usable(ctx, "dial", port); gone != nil {
		return nil, gone
	}
	return nil, fmt.Errorf("dial vsock port %d: %w", port, err)
}

// Listen accepts the streams that the guest opens to a port of the host.
func (v *vm) Listen(ctx context.Context, port uint32) (net.Listener, error) {
	if err := v.usable(ctx, "listen on", port); err != nil {
		return nil, err
	}
	l, err := v.vsock.Listen(port)
	if err != nil {
		return nil, fmt.Errorf("listen on vsock port %d: %w", port, err)
	}
	return l, nil
}

// usable returns why neither Dial nor Listen can work, or nil.
func (v *vm) usable(ctx context.Context, what string, port uint32) error {
	switch {
	case v.alive.Err() != nil:
		return fmt.Errorf("%s vsock port %d: the VM %s is off: %w", what, port, v.cfg.Name, net.ErrClosed)
	case ctx.Err() != nil:
		return fmt.Errorf("%s vsock port %d: %w", what, port, context.Cause(ctx))
	}
	return nil
}

// Wait blocks until the VM is gone.
func (v *vm) Wait() error {
	<-v.done
	return v.err
}

// Close cuts the power.
func (v *vm) Close() error {
	v.closeOnce.Do(func() {
		v.mu.Lock()
		select {
		case <-v.qemu.done: // it has ended by itself, and Wait says why
		default:
			v.closed = true
		}
		v.mu.Unlock()
		v.end()
		ctx, cancel := context.WithTimeout(context.Background(), quitTimeout)
		defer cancel()
		// QEMU may be gone before it answers.
		if err := v.mon.run(ctx, "quit", nil); err != nil && !errors.Is(err, errMonitorGone) {
			v.log.Debug("QEMU was asked to quit", "err", err)
		}
		select {
		case <-v.qemu.done:
		case <-ctx.Done():
			v.log.Warn("QEMU does not quit; it is killed")
			v.qemu.kill()
		}
	})
	<-v.done
	return nil
}
