package guest

import (
	"context"
	"net"
	"time"

	"github.com/lsub/lsub/guest/guestv1"
)

// Share has the guest mount a directory of the host whose FUSE requests come on the
// connection that it returns, as package share serves them. The mount lasts as long as the
// connection, which the caller closes.
func (c *Client) Share(ctx context.Context, s *guestv1.Share) (net.Conn, error) {
	return c.shareStream(ctx, &guestv1.StreamRequest{Kind: &guestv1.StreamRequest_Share{Share: s}})
}

// Echoes returns a connection on which the server of a share, of the path that the guest
// knows it by, tells the guest what changes on the host. The caller closes it.
func (c *Client) Echoes(ctx context.Context, path string) (net.Conn, error) {
	return c.shareStream(ctx, &guestv1.StreamRequest{Kind: &guestv1.StreamRequest_Echoes{Echoes: &guestv1.Echoes{Path: path}}})
}

// shareStream begins a stream that a share's server goes on with.
func (c *Client) shareStream(ctx context.Context, req *guestv1.StreamRequest) (net.Conn, error) {
	conn, err := c.dialer.Dial(ctx, StreamPort)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	req.Version = c.version
	err = NewWriter(conn).SendMessage(FrameRequest, req)
	var head []byte
	if err == nil {
		conn.SetReadDeadline(time.Now().Add(answerTimeout))
		head, err = ReadMessage(conn, FrameStarted, &guestv1.Started{})
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, streamError(ctx, err)
	}
	if !stop() {
		return nil, context.Cause(ctx)
	}
	conn.SetReadDeadline(time.Time{})
	return &headConn{conn, head}, nil
}

// headConn is a connection of which some bytes were read already.
type headConn struct {
	net.Conn
	head []byte
}

func (c *headConn) Read(p []byte) (int, error) {
	if len(c.head) > 0 {
		n := copy(p, c.head)
		c.head = c.head[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}
