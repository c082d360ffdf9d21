package vztest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/lsub/lsub/hypervisor/vz"
	"github.com/lsub/lsub/virtionet"
)

// Connect opens a stream to the guest.
func (m *Machine) Connect(port uint32) (net.Conn, error) {
	m.mu.Lock()
	state, vm, refused := m.state, m.vm, m.refusals > 0
	if refused {
		m.refusals--
	}
	m.mu.Unlock()
	if state != vz.StateRunning || vm == nil {
		return nil, &vz.Error{Domain: "VZErrorDomain", Code: 3, Description: "Invalid virtual machine state."}
	}
	reset := &vz.Error{Domain: "NSPOSIXErrorDomain", Code: 54, Description: "The operation couldn’t be completed. Connection reset by peer"}
	if refused {
		return nil, reset
	}
	c, err := vm.Dial(context.Background(), port)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return nil, reset
	case err != nil:
		return nil, &vz.Error{Domain: "VZErrorDomain", Code: 3, Description: err.Error()}
	}
	return &conn{rawConn: c}, nil
}

// conn is a stream as the binding has it: it cannot be half closed.
type conn struct{ rawConn net.Conn }

func (c *conn) Read(b []byte) (int, error)         { return c.rawConn.Read(b) }
func (c *conn) Write(b []byte) (int, error)        { return c.rawConn.Write(b) }
func (c *conn) Close() error                       { return c.rawConn.Close() }
func (c *conn) LocalAddr() net.Addr                { return c.rawConn.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr               { return c.rawConn.RemoteAddr() }
func (c *conn) SetDeadline(t time.Time) error      { return c.rawConn.SetDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.rawConn.SetReadDeadline(t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.rawConn.SetWriteDeadline(t) }

// Listen accepts the guest's streams.
func (m *Machine) Listen(port uint32) (net.Listener, error) {
	vm := m.VM()
	if vm == nil {
		return nil, wrongState(vz.StateStopped)
	}
	l, err := vm.Listen(context.Background(), port)
	if err != nil {
		return nil, &vz.Error{Domain: "VZErrorDomain", Code: 3, Description: err.Error()}
	}
	gone := make(chan struct{})
	go func() {
		vm.Wait()
		close(gone)
	}()
	return &listener{l, gone}, nil
}

// listener is a listener as the binding has it: after Close, Accept waits. It ends with the
// engine's VM, so that tests can look for what they leave behind.
type listener struct {
	net.Listener
	gone chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.gone
		return nil, err
	}
	return &conn{rawConn: c}, nil
}

// serveCard moves frames between the engine's card and the driver's socket.
func (m *Machine) serveCard(ctx context.Context, engine net.Conn, framing virtionet.Framing) error {
	if framing != virtionet.Datagram {
		return fmt.Errorf("the engine's frames are no datagrams (framing %d)", framing)
	}
	stop := context.AfterFunc(ctx, func() {
		engine.Close()
		m.card.Close()
	})
	defer stop()
	var both sync.WaitGroup
	pump := func(to, from net.Conn) {
		defer to.Close()
		buf := make([]byte, 1<<16)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	both.Go(func() { pump(engine, m.card) })
	both.Go(func() { pump(m.card, engine) })
	both.Wait()
	return nil
}

// Sleep has macOS pause the machine without being asked, as while the Mac sleeps.
func (m *Machine) Sleep() error { return m.Pause() }
