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

// Backend is the device-specific part, besides the queues' Service. Its methods are called
// without locks, and may not block.
type Backend interface {
	// Restart is called when the guest's driver has restarted, or was stopped for an error.
	// All state of the earlier driver is void.
	Restart()
	// Changed is called when a queue may have gained or lost its ring.
	Changed()
	// Ended is called when the front-end is gone. No queue has a ring any more.
	Ended()
}

// Config describes a device.
type Config struct {
	Name   string // for errors and logs, as in "vsock"
	Logger *slog.Logger
	// Features are the features that the device offers, besides [FeatureVersion1] and the
	// others of every device. Required are those that the driver must take: otherwise the
	// device stays stopped, with a log entry.
	Features, Required uint64
	// Space is the device's configuration space, of 256 bytes at most. Nil means that the
	// front-end keeps it by itself.
	Space []byte
	// Queues are the queues that the front-end does not keep, in virtio's order.
	Queues []*Queue
	// MaxQueues is the number of queues that the front-end is told. A network card counts
	// them in pairs.
	MaxQueues uint64
	Backend   Backend
	// Inflight is memory of [InflightLen] bytes, zero at first, that outlives this process:
	// it says which chains were taken and not given back. The next back-end of the same rings
	// finishes them. Nil for devices that end with their process. Queues use Begin and Finish
	// then.
	Inflight []byte
}

// Device is the back-end of one device. Its methods are safe for concurrent use.
type Device struct {
	cfg                Config
	features, protocol uint64
	log                *slog.Logger
	// broken is set when the guest has made a ring unusable, until its driver is reset.
	broken atomic.Bool

	wg sync.WaitGroup // Serve and its goroutines

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
	for i, q := range cfg.Queues {
		q.init()
		if cfg.Inflight != nil {
			q.inflight = newInflight(cfg.Inflight, i)
		}
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

// Close ends the connection to the front-end, and waits for Serve and its goroutines. It is
// idempotent.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	conn := d.conn
	d.mu.Unlock()
	if conn != nil {
		// Wakes Serve, which closes conn.
		_ = conn.SetDeadline(time.Unix(1, 0))
	}
	d.wg.Wait()
	return nil
}

// Broken reports whether [Device.Fail] has stopped the device.
func (d *Device) Broken() bool { return d.broken.Load() }

// Fail stops all rings because the guest has broken the protocol. A reset of its driver
// revives the device. Fail takes no lock, because its caller may hold some. The back-end's
// Restart is called later.
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
