package vhostvsock

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/lsub/lsub/connbuf"
	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
)

const network = "vsock"

// Config describes a device. For a limit, zero means the default.
type Config struct {
	// GuestCID is the guest's address, 3 to 2^32-2. It only has to be unique
	// among the devices of one VM: the host knows guests by their Device.
	GuestCID uint64
	// Logger receives the errors of the guest and the front-end; nil discards.
	Logger *slog.Logger
	// MaxStreams bounds the number of streams, including closed ones that the guest has not
	// confirmed yet. Default 16384.
	MaxStreams int
	// Backlog bounds the streams of a listener that wait for Accept. Beyond it the guest is
	// refused. Default 1024.
	Backlog int
	// StreamBuffer is how many bytes a stream takes from the guest before the application
	// reads them, at most 16 MiB. Default 1 MiB. Only bytes that wait use memory, not free
	// room.
	StreamBuffer int
	// MaxBuffered bounds the sum of the room promised to the guest. As it runs out, new
	// streams get less, down to 16 KiB each. Default 256 MiB.
	MaxBuffered int64
	// CloseTimeout is how long a closed stream waits for the guest's confirmation before it
	// is reset. Default 8 s, as in Linux.
	CloseTimeout time.Duration
}

// minStreamBuffer is a stream's buffer when MaxBuffered is used up, in bytes.
const minStreamBuffer = 16 << 10

func (c *Config) setDefaults() {
	setDefault(&c.MaxStreams, 16384)
	setDefault(&c.Backlog, 1024)
	setDefault(&c.StreamBuffer, 1<<20)
	setDefault(&c.MaxBuffered, 256<<20)
	setDefault(&c.CloseTimeout, 8*time.Second)
	c.StreamBuffer = min(max(c.StreamBuffer, minStreamBuffer), connbuf.MaxBuffer)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T int | int64 | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}

// Addr is an address of AF_VSOCK.
type Addr struct {
	CID  uint64
	Port uint32
}

// Network returns "vsock".
func (a *Addr) Network() string { return network }

// String returns the address as "CID:port".
func (a *Addr) String() string { return fmt.Sprintf("%d:%d", a.CID, a.Port) }

// Device is the host's end of one guest's vsock device. Its methods are safe
// for concurrent use.
type Device struct {
	cfg Config
	cid uint64
	log *slog.Logger
	dev *vhostuser.Device

	rx rxQueue
	tx txQueue

	mu        sync.Mutex // innermost lock; guards what follows
	gone      bool       // no stream can exist any more
	streams   map[flowKey]*stream
	listeners map[uint32]*listener
	nextPort  uint32
	reserved  int64 // sum of the streams' promised buffers
}

// New returns a device that waits to be served. It starts nothing.
func New(cfg Config) *Device {
	cfg.setDefaults()
	d := &Device{
		cfg: cfg, cid: cfg.GuestCID, log: cfg.Logger,
		streams: map[flowKey]*stream{}, listeners: map[uint32]*listener{},
		nextPort: firstDynamicPort,
	}
	d.rx.d, d.rx.Name, d.rx.Service = d, "rx", d.rx.service
	d.tx.d, d.tx.Name, d.tx.Service, d.tx.Drain = d, "tx", d.tx.service, d.tx.drain
	queues := []*vhostuser.Queue{&d.rx.Queue, &d.tx.Queue} // QEMU keeps the event queue
	d.dev = vhostuser.New(vhostuser.Config{
		Name: network, Logger: d.log.With("cid", d.cid), Queues: queues, MaxQueues: uint64(len(queues)),
		// struct virtio_vsock_config
		Space:   binary.LittleEndian.AppendUint64(nil, d.cid),
		Backend: backend{d},
	})
	return d
}

// Serve speaks vhost-user with the front-end (QEMU) on conn until the connection ends or
// Close is called. Then every stream and listener fails. It closes conn. It returns nil
// unless the front-end broke the protocol. A device is served once.
func (d *Device) Serve(conn *net.UnixConn) error {
	if err := d.check(); err != nil {
		conn.Close()
		return err
	}
	return d.dev.Serve(conn)
}

// backend implements vhostuser.Backend.
type backend struct{ *Device }

// Restart adapts all streams to a restarted driver, which knows none of them.
func (b backend) Restart() {
	b.rx.drop()
	for _, s := range b.all() {
		s.restart()
		b.rx.submit(s)
	}
}

// Changed resumes streams that may wait for either queue.
func (b backend) Changed() { b.rx.service() }

// Ended fails every stream and listener.
func (b backend) Ended() { b.endAll() }

// firstDynamicPort is the first port for dialed streams: above the ports that people choose
// by hand.
const firstDynamicPort = 1 << 30

// check returns an error if the configuration is invalid.
func (d *Device) check() error {
	if d.cid < 3 || d.cid >= 1<<32-1 {
		return fmt.Errorf("vsock: guest CID %d is outside 3 to 2^32-2", d.cid)
	}
	return nil
}

// Dial opens a stream to the port in the guest. It waits while the guest's driver is not up.
// ctx bounds the dialing, not the stream. If nobody listens, the error wraps
// [syscall.ECONNRESET]; if the device is gone, [net.ErrClosed]. The caller closes the stream.
//
// The result has CloseRead and CloseWrite, and implements io.WriterTo and io.ReaderFrom.
func (d *Device) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	s, err := d.newDial(port)
	if err == nil {
		d.rx.submit(s)
		select {
		case <-s.opened:
			err = s.dialed()
		case <-ctx.Done():
			err = ctx.Err()
			s.abort(err)
			_ = s.Close()
		}
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: &Addr{CID: d.cid, Port: port}, Err: err}
	}
	return s, nil
}

// dialed returns why the guest refused, or nil. An accepted stream that has ended since was
// opened.
func (s *stream) dialed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refused {
		return s.err
	}
	return nil
}

func (d *Device) newDial(port uint32) (*stream, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.gone {
		return nil, errGone
	}
	if len(d.streams) >= d.cfg.MaxStreams {
		return nil, fmt.Errorf("%d streams are open: %w", len(d.streams), syscall.EAGAIN)
	}
	key := flowKey{local: d.nextPort, peer: port}
	for d.streams[key] != nil || d.listeners[key.local] != nil {
		key.local++
		if key.local == 1<<32-1 {
			key.local = firstDynamicPort
		}
	}
	d.nextPort = key.local + 1
	if d.nextPort == 1<<32-1 {
		d.nextPort = firstDynamicPort
	}
	s := newStream(d, key, stateDialing)
	s.opened = make(chan struct{})
	s.owes = owesRequest
	d.add(s)
	return s, nil
}

// add enters a stream in the table and promises it a buffer. d.mu is held.
func (d *Device) add(s *stream) {
	share := (d.cfg.MaxBuffered - d.reserved) / 64
	s.reserved = min(max(share, minStreamBuffer), int64(d.cfg.StreamBuffer))
	s.bufAlloc = uint32(s.reserved)
	d.reserved += s.reserved
	d.streams[s.key] = s
}

// release gives the stream's promised buffer back. It may be called more than
// once. s.mu is held.
func (d *Device) release(s *stream) {
	d.mu.Lock()
	d.reserved -= s.reserved
	s.reserved = 0
	d.mu.Unlock()
}

// forget takes a stream out of the table.
func (d *Device) forget(s *stream) {
	d.mu.Lock()
	if d.streams[s.key] == s {
		delete(d.streams, s.key)
	}
	d.mu.Unlock()
}

func (d *Device) lookup(key flowKey) *stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.streams[key]
}

// all returns the streams there are.
func (d *Device) all() []*stream {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := make([]*stream, 0, len(d.streams))
	for _, s := range d.streams {
		list = append(list, s)
	}
	return list
}

// Close ends the connection to the front-end and every stream and listener,
// and waits until Serve and all that it started are done. It is idempotent.
func (d *Device) Close() error {
	d.endAll()
	return d.dev.Close()
}

// endAll fails every stream and listener for good.
func (d *Device) endAll() {
	d.mu.Lock()
	d.gone = true
	listeners := d.listeners
	d.listeners = map[uint32]*listener{}
	d.mu.Unlock()
	for _, l := range listeners {
		l.end()
	}
	for _, s := range d.all() {
		s.mu.Lock()
		s.die(errGone, false)
		d.forget(s)
		s.mu.Unlock()
	}
	d.rx.drop()
}
