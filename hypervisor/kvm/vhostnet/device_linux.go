package vhostnet

import (
	"log/slog"
	"net"
	"sync/atomic"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/virtionet"
)

var _ virtionet.Card = (*Device)(nil)

// Features of virtio 1.2, section 5.1.3.
const (
	featCsum      = 1 << 0  // the device completes checksums
	featGuestCsum = 1 << 1  // the driver completes checksums
	featGuestTSO4 = 1 << 7  // the driver takes large IPv4 segments
	featGuestTSO6 = 1 << 8  // the driver takes large IPv6 segments
	featHostTSO4  = 1 << 11 // the device takes large IPv4 segments
	featHostTSO6  = 1 << 12
	featMrgRxbuf  = 1 << 15 // a frame may take several of the driver's buffers

	features = featCsum | featGuestCsum | featGuestTSO4 | featGuestTSO6 | featHostTSO4 | featHostTSO6 | featMrgRxbuf
	// required are the features that the host's frames use unconditionally. VERSION_1
	// determines the length of the header.
	required = vhostuser.FeatureVersion1 | featGuestCsum | featGuestTSO4 | featGuestTSO6
)

// maxFrame is the maximum size of a frame with its header, in bytes, in both directions. The
// largest frames of Linux have 64 KiB and headers.
const maxFrame = 128 << 10

// Device is the host's end of one guest's network card. Its methods are safe for
// concurrent use.
type Device struct {
	dev  *vhostuser.Device
	recv virtionet.Receiver
	rx   rxQueue
	tx   txQueue

	dropsRx, dropsTx atomic.Int64
}

// New returns a device that waits to be served. It calls attach to get the receiver of the
// guest's frames. It starts nothing. log receives the errors of the guest and the front-end;
// nil discards.
func New(attach func(virtionet.Card) virtionet.Receiver, log *slog.Logger) *Device {
	d := &Device{}
	d.rx.d, d.rx.Name, d.rx.Service = d, "rx", d.rx.service
	d.tx.d, d.tx.Name, d.tx.Service, d.tx.Drain = d, "tx", d.tx.service, d.tx.drain
	d.dev = vhostuser.New(vhostuser.Config{
		Name: "net", Logger: log, Features: features, Required: required,
		Queues: []*vhostuser.Queue{&d.rx.Queue, &d.tx.Queue}, MaxQueues: 1, // one pair
		Backend: backend{d},
	})
	d.recv = attach(d)
	return d
}

// Serve speaks vhost-user with the front-end (QEMU) on conn until the connection ends or
// Close is called. It closes conn. It returns nil unless the front-end broke the protocol. A
// device is served once.
func (d *Device) Serve(conn *net.UnixConn) error { return d.dev.Serve(conn) }

// Close ends the connection to the front-end, and waits for Serve and its goroutines: then
// the receiver is no longer called. It is idempotent.
func (d *Device) Close() error { return d.dev.Close() }

// Dropped returns how many frames to the guest and from it were dropped because they were too
// large, for the guest's buffers or for any frame. It does not count frames for a guest
// without a driver.
func (d *Device) Dropped() (toGuest, fromGuest int64) { return d.dropsRx.Load(), d.dropsTx.Load() }

// backend implements vhostuser.Backend.
type backend struct{ *Device }

// Restart wakes those who wait for room: their frames are dropped, or a new ring has room.
func (b backend) Restart() { b.rx.gone() }

// Changed wakes those who wait for room, if there is room now.
func (b backend) Changed() { b.rx.service() }

// Ended wakes all who wait for room.
func (b backend) Ended() { b.rx.gone() }
