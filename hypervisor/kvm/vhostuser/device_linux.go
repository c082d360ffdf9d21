package vhostuser

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Backend is what a device does besides its queues' Service. Its methods are called
// without locks, and may not wait.
type Backend interface {
	// Restart is called when the guest's driver has started anew, or was stopped for
	// what it did wrong: what it knew of earlier is void.
	Restart()
	// Changed is called when a queue may have got its ring, or lost it.
	Changed()
	// Ended is called when the front-end is gone; no queue has a ring any more.
	Ended()
}

// Config describes a device.
type Config struct {
	Name   string // in errors and logs, as in "vsock"
	Logger *slog.Logger
	// Features is what the device offers besides what all do (see
	// [FeatureVersion1]), and Required what a driver has to take: without it the
	// device stays stopped, with a log entry.
	Features, Required uint64
	// Space is the device's configuration space, of 256 bytes at most. Nil stands for
	// one that the front-end keeps by itself.
	Space []byte
	// Queues are those that the front-end does not keep, in the order of virtio.
	Queues []*Queue
	// MaxQueues is what the front-end is told of the number of queues. A network card
	// counts them in pairs.
	MaxQueues uint64
	Backend   Backend
}

// Device is the back-end of one device. Its methods are safe for concurrent use.
type Device struct {
	cfg                Config
	features, protocol uint64
	log                *slog.Logger
	// broken is set when the guest has made a ring unusable, until its driver
	// is reset.
	broken atomic.Bool

	wg sync.WaitGroup // Serve and what it started

	mu     sync.Mutex
	conn   *net.UnixConn
	served bool
	closed bool
}

// New returns a device that waits to be served. It starts nothing.
func New(cfg Config) *Device {
	d := &Device{cfg: cfg, features: cfg.Features | commonFeatures, protocol: protoFeatures, log: cfg.Logger}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Space != nil {
		d.protocol |= protoConfig
	}
	for _, q := range cfg.Queues {
		q.init()
	}
	return d
}

// Serve speaks vhost-user with the front-end (QEMU) on conn until the
// connection ends or Close is called. It closes conn. It returns nil unless the
// front-end broke the protocol. A device is served once.
func (d *Device) Serve(conn *net.UnixConn) error {
	defer conn.Close()
	d.mu.Lock()
	var err error
	switch {
	case d.closed:
		err = fmt.Errorf("the %s device is gone: %w", d.cfg.Name, net.ErrClosed)
	case d.served:
		err = fmt.Errorf("%s: the device is or was served already", d.cfg.Name)
	default:
		d.served, d.conn = true, conn
		d.wg.Add(1)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	defer d.wg.Done()
	s := &session{d: d, conn: conn, mem: &guestMemory{}}
	err = s.run()
	s.end()
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	d.cfg.Backend.Ended()
	if closed || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return fmt.Errorf("%s: %w", d.cfg.Name, err)
}

// Close ends the connection to the front-end, and waits until Serve and all that
// it started are done. It is idempotent.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	conn := d.conn
	d.mu.Unlock()
	if conn != nil {
		// Wakes Serve, which closes it.
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	d.wg.Wait()
	return nil
}

// Broken tells whether the device was stopped by [Device.Fail].
func (d *Device) Broken() bool { return d.broken.Load() }

// Fail stops all rings: the guest did what no driver does. A reset of its driver
// revives the device. It takes no lock, because whoever finds the fault holds
// some; the back-end's Restart is called later.
func (d *Device) Fail(err error) {
	if !d.broken.CompareAndSwap(false, true) {
		return
	}
	d.log.Error(d.cfg.Name+": device stopped until the guest resets it", "err", err)
	// Serve holds the group: a ring exists only while it runs.
	d.wg.Go(func() {
		for _, q := range d.cfg.Queues {
			q.signalError()
		}
		d.cfg.Backend.Restart()
	})
}
