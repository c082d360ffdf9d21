package vhostvsock

import (
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// listener implements net.Listener.
type listener struct {
	d    *Device
	port uint32

	// Guarded by Device.mu.
	cond  sync.Cond
	queue []*stream
	err   error
}

// Listen accepts the streams that the guest opens to the port of the host (CID 2). It may be
// called before the device is served. If the port is in use, the error wraps
// [syscall.EADDRINUSE]. The caller closes the listener; the end of the device does too.
func (d *Device) Listen(port uint32) (net.Listener, error) {
	l := &listener{d: d, port: port}
	l.cond.L = &d.mu
	err := d.check()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
	case d.gone:
		err = errGone
	case d.listeners[port] != nil:
		err = os.NewSyscallError("bind", syscall.EADDRINUSE)
	}
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: network, Addr: l.Addr(), Err: err}
	}
	d.listeners[port] = l
	return l, nil
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return &Addr{CID: hostCID, Port: l.port} }

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for l.err == nil && len(l.queue) == 0 {
		l.cond.Wait()
	}
	if l.err != nil {
		return nil, &net.OpError{Op: "accept", Net: network, Addr: l.Addr(), Err: l.err}
	}
	s := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	return s, nil
}

// Close implements net.Listener. It resets streams that nobody accepted.
func (l *listener) Close() error {
	l.d.mu.Lock()
	if l.err != nil {
		l.d.mu.Unlock()
		return nil
	}
	l.err = net.ErrClosed
	if l.d.listeners[l.port] == l {
		delete(l.d.listeners, l.port)
	}
	l.d.mu.Unlock()
	l.end()
	return nil
}

// end fails Accept and resets the streams that wait for it.
func (l *listener) end() {
	l.d.mu.Lock()
	if l.err == nil {
		l.err = errGone
	}
	queue := l.queue
	l.queue = nil
	l.cond.Broadcast()
	l.d.mu.Unlock()
	for _, s := range queue {
		s.abort(net.ErrClosed)
		_ = s.Close()
	}
}

// accept answers a guest's request for a stream. It returns the stream, which owes its
// response, or nil if the guest is refused.
func (d *Device) accept(key flowKey, h *header) *stream {
	d.mu.Lock()
	l := d.listeners[key.local]
	full := ""
	switch {
	case l == nil || d.gone:
		full = "nobody listens"
	case len(l.queue) >= d.cfg.Backlog:
		full = fmt.Sprintf("%d streams wait to be accepted", len(l.queue))
	case len(d.streams) >= d.cfg.MaxStreams:
		full = fmt.Sprintf("%d streams are open", len(d.streams))
	}
	if full != "" {
		d.mu.Unlock()
		d.log.Debug("vsock: the guest is refused", "port", key.local, "why", full)
		d.reject(h)
		return nil
	}
	s := newStream(d, key, stateOpen)
	s.peerAlloc, s.peerFwdCnt = h.BufAlloc, h.FwdCnt
	s.owes = owesResponse
	d.add(s)
	l.queue = append(l.queue, s)
	l.cond.Signal()
	d.mu.Unlock()
	return s
}
