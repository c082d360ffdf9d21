package vhostfs

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"

	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
	"github.com/lsub/lsub/share"
)

// Server answers requests, as [share.Server] does.
type Server interface {
	Handle(ctx context.Context, in, out [][]byte) int
}

// Device is a file system device. Its methods are safe for concurrent use.
type Device struct {
	dev    *vhostuser.Device
	server Server
	queues []*queue

	wg sync.WaitGroup // requests beside the queues' goroutines
}

// InflightLen is the size of the memory for New, in bytes, for a device with so many request
// queues.
func InflightLen(requestQueues int) int { return vhostuser.InflightLen(1 + requestQueues) }

// New returns a device that waits to be served. inflight is as in [vhostuser.Config]. log
// receives the errors of the guest and the front-end; nil discards. It starts nothing.
func New(server Server, requestQueues int, inflight []byte, log *slog.Logger) *Device {
	d := &Device{server: server}
	var rings []*vhostuser.Queue
	for i := range 1 + requestQueues { // the first is for requests that must not wait: forgets
		q := &queue{d: d}
		q.Name, q.Service, q.Interrupt, q.Orphan = fmt.Sprintf("request %d", i), q.service, q.interrupt, share.Fail
		q.ctx, q.cancel = context.WithCancel(context.Background())
		d.queues = append(d.queues, q)
		rings = append(rings, &q.Queue)
	}
	d.dev = vhostuser.New(vhostuser.Config{
		Name: "fs", Logger: log, Required: vhostuser.FeatureVersion1, Queues: rings, MaxQueues: uint64(len(rings)),
		Backend: backend{}, Inflight: inflight,
	})
	return d
}

// Serve speaks vhost-user with the front-end on conn until the connection ends or Close is
// called. It closes conn. It returns nil unless the front-end broke the protocol. A device is
// served once.
func (d *Device) Serve(conn *net.UnixConn) error {
	err := d.dev.Serve(conn)
	d.wg.Wait()
	return err
}

// Close ends the connection to the front-end, and waits for all requests.
func (d *Device) Close() error {
	err := d.dev.Close()
	d.wg.Wait()
	return err
}

// backend implements vhostuser.Backend. The device has no state besides its rings: the
// guest's driver begins with a new INIT.
type backend struct{}

func (backend) Restart() {}
func (backend) Changed() {}
func (backend) Ended()   {}

// queue is a queue of requests.
type queue struct {
	vhostuser.Queue
	d *Device

	mu     sync.Mutex
	ctx    context.Context // of the requests in progress
	cancel context.CancelFunc
}

// interrupt ends requests that wait for locks: the ring is about to go.
func (q *queue) interrupt() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.cancel()
	q.ctx, q.cancel = context.WithCancel(context.Background())
}

func (q *queue) context() context.Context {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.ctx
}

// chain is a request that was taken.
type chain struct {
	head    uint16
	in, out [][]byte
}

// service runs after the guest's kick. It serves the last request that is there in its own
// goroutine, and the others, and those that may wait, beside it: a change of goroutines is
// most of the cost of a short request.
func (q *queue) service() (pause bool) {
	for {
		own, more := q.take()
		if own != nil {
			q.serve(own)
		}
		if own == nil && !more {
			return false
		}
	}
}

// take takes all requests there are. It returns one to serve in this goroutine, or nil, and
// whether to look again.
func (q *queue) take() (own *chain, more bool) {
	q.Lock()
	defer q.Unlock()
	r := q.Ring()
	if r == nil || q.d.dev.Broken() {
		return nil, false
	}
	r.DisableNotify()
	for {
		ok, err := r.Available()
		if err == nil && !ok {
			if own != nil {
				return own, true
			}
			if ok, err = r.EnableNotify(); err == nil && !ok {
				return nil, false
			}
			r.DisableNotify()
		}
		var c chain
		if err == nil {
			c.head, c.in, c.out, err = r.PeekBoth()
		}
		if err != nil {
			q.d.dev.Fail(fmt.Errorf("%s queue: %w", q.Name, err))
			return own, own != nil
		}
		q.Begin(c.head)
		if own != nil {
			q.beside(own)
			own = nil
		}
		if share.Waits(c.in) {
			q.beside(&c)
		} else {
			own = &c
		}
	}
}

// beside serves a request in a goroutine of its own. Serve waits for it.
func (q *queue) beside(c *chain) { q.d.wg.Go(func() { q.serve(c) }) }

func (q *queue) serve(c *chain) {
	q.Finish(c.head, q.d.server.Handle(q.context(), c.in, c.out))
}
