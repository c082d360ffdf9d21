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

// Connect opens a stream to what listens in a distro. What is written to it
// goes there, at once. Before the first Read, answer must be called: it waits for the
// guest to be connected, or returns why it is not; head is what has come already of what
// the other side says. The caller closes the stream.
//
// CloseWrite passes on the end of a direction; a Close without one before it is
// a reset, which the other side sees as one.
func (c *Client) Connect(ctx context.Context, to *guestv1.Connect) (conn net.Conn, answer func() (head []byte, err error), err error) {
	return c.forward(ctx, &guestv1.ForwardRequest{Kind: &guestv1.ForwardRequest_Connect{Connect: to}})
}

// Accept collects a connection that [Client.Listen] has told of. It is
// otherwise like [Client.Connect].
func (c *Client) Accept(ctx context.Context, id uint64) (conn net.Conn, answer func() (head []byte, err error), err error) {
	return c.forward(ctx, &guestv1.ForwardRequest{Kind: &guestv1.ForwardRequest_Accept{Accept: id}})
}

func (c *Client) forward(ctx context.Context, req *guestv1.ForwardRequest) (net.Conn, func() ([]byte, error), error) {
	conn, err := c.dialer.Dial(ctx, ForwardPort)
	if err != nil {
		return nil, nil, err
	}
	req.Version = c.version
	if err := NewWriter(conn).SendMessage(FrameRequest, req); err != nil {
		conn.Close()
		return nil, nil, streamError(ctx, err)
	}
	return conn, func() ([]byte, error) {
		conn.SetReadDeadline(time.Now().Add(answerTimeout))
		head, err := ReadMessage(conn, FrameStarted, &guestv1.Started{})
		if err != nil {
			return nil, streamError(ctx, err)
		}
		return head, conn.SetReadDeadline(time.Time{})
	}, nil
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
