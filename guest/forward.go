package guest

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
)

// Stream is a connection to a distro that the guest may not have completed yet.
type Stream struct {
	// Conn may be written to at once. CloseWrite passes on the end of a direction; a
	// Close without one before it is a reset, which the other side sees as one.
	Conn net.Conn
	// Opened waits until the guest is connected, or returns why it is not. Call it
	// before the first Read. It returns the bytes from the other side that have come
	// already.
	Opened func() (head []byte, err error)
}

// Connect opens a stream to a listener in a distro. The caller closes it.
func (c *Client) Connect(ctx context.Context, to *guestv1.Connect) (Stream, error) {
	return c.forward(ctx, &guestv1.ForwardRequest{Kind: &guestv1.ForwardRequest_Connect{Connect: to}})
}

// ConnectNow is Connect, and waits until the guest is connected. The caller closes the
// connection.
func (c *Client) ConnectNow(ctx context.Context, to *guestv1.Connect) (net.Conn, error) {
	stream, err := c.Connect(ctx, to)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { stream.Conn.Close() })
	head, err := stream.Opened()
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		stream.Conn.Close()
		return nil, err
	}
	return &headed{stream.Conn, head}, nil
}

// headed is a connection whose first bytes have come already.
type headed struct {
	net.Conn
	head []byte
}

// CloseWrite passes on the end of what is written.
func (h *headed) CloseWrite() error {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return h.Conn.Close()
}

func (h *headed) Read(p []byte) (int, error) {
	if n := copy(p, h.head); n > 0 {
		h.head = h.head[n:]
		return n, nil
	}
	return h.Conn.Read(p)
}

// Accept collects a connection that [Client.Listen] has told of. It is
// otherwise like [Client.Connect].
func (c *Client) Accept(ctx context.Context, id uint64) (Stream, error) {
	return c.forward(ctx, &guestv1.ForwardRequest{Kind: &guestv1.ForwardRequest_Accept{Accept: id}})
}

func (c *Client) forward(ctx context.Context, req *guestv1.ForwardRequest) (Stream, error) {
	conn, err := c.dialer.Dial(ctx, ForwardPort)
	if err != nil {
		return Stream{}, err
	}
	req.Version = c.version
	if err := NewWriter(conn).SendMessage(FrameRequest, req); err != nil {
		conn.Close()
		return Stream{}, streamError(ctx, err)
	}
	return Stream{conn, func() ([]byte, error) {
		conn.SetReadDeadline(time.Now().Add(answerTimeout))
		head, err := ReadMessage(conn, FrameStarted, &guestv1.Started{})
		if err != nil {
			return nil, streamError(ctx, err)
		}
		return head, conn.SetReadDeadline(time.Time{})
	}}, nil
}

// Listen takes connections in the guest until ctx is done or it fails. It calls
// started when the guest listens, once more whenever the distro has been away, and
// accepted with the number of each connection that comes; both must not wait.
func (c *Client) Listen(ctx context.Context, at *guestv1.Listen, started func(), accepted func(id uint64)) error {
	conn, err := c.dialer.Dial(ctx, ForwardPort)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req := &guestv1.ForwardRequest{Version: c.version, Kind: &guestv1.ForwardRequest_Listen{Listen: at}}
	if err := NewWriter(conn).SendMessage(FrameRequest, req); err != nil {
		return streamError(ctx, err)
	}
	for r := NewReader(conn); ; {
		t, p, err := r.Next()
		switch {
		case err == io.EOF:
			return streamError(ctx, io.ErrUnexpectedEOF)
		case err != nil:
			return streamError(ctx, err)
		case t == FrameStarted:
			started()
		case t == FrameAccepted && len(p) == 8:
			accepted(binary.BigEndian.Uint64(p))
		case t == FrameError:
			var m guestv1.Error
			if err := decode(p, &m); err != nil {
				return err
			}
			return Errorf(m.Code, m.Hint, "%s", m.Message)
		default:
			return frameError(fmt.Sprintf("unexpected frame of type %d", t))
		}
	}
}
