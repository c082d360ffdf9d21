package guest

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
)

// liar is a guest that answers each request with a head and the bytes that body writes.
type liar struct {
	head string
	body func(w io.Writer) error
	sent atomic.Int64
}

func (l *liar) Dial(ctx context.Context, port uint32) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		if _, err := http.ReadRequest(bufio.NewReader(theirs)); err != nil {
			return
		}
		go io.Copy(io.Discard, theirs)
		fmt.Fprintf(theirs, "HTTP/1.1 200 OK\r\nConnection: close\r\n%s\r\n", l.head)
		l.body(l.count(theirs))
	}()
	return ours, nil
}

func (l *liar) count(w io.Writer) io.Writer {
	return writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		l.sent.Add(int64(n))
		return n, err
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func repeat(w io.Writer, block []byte, times int) error {
	for range times {
		if _, err := w.Write(block); err != nil {
			return err
		}
	}
	return nil
}

// An answer is refused before it has taken more memory than a message may have.
func TestEndlessAnswers(t *testing.T) {
	zeros := make([]byte, 1<<20)
	proto := "Content-Type: application/proto\r\n"
	stream := "Content-Type: application/connect+proto\r\n"
	for name, l := range map[string]*liar{
		"a message without end": {head: proto, body: func(w io.Writer) error { return repeat(w, zeros, 1<<12) }},
		"a compressed one": {head: proto + "Content-Encoding: gzip\r\n", body: func(w io.Writer) error {
			z := gzip.NewWriter(w)
			err := repeat(z, zeros, 1<<10)
			z.Close()
			return err
		}},
		"a long frame": {head: stream, body: func(w io.Writer) error {
			w.Write(binary.BigEndian.AppendUint32([]byte{0}, 1<<30))
			return repeat(w, zeros, 1<<10)
		}},
		"a head without end": {head: strings.Repeat("X: "+strings.Repeat("y", 1000)+"\r\n", 1<<12), body: func(io.Writer) error { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			c := NewClient(l, "v")
			var err error
			if strings.Contains(l.head, "connect+proto") {
				var s *connect.ServerStreamForClient[guestv1.WatchResponse]
				if s, err = c.Watch(t.Context(), connect.NewRequest(&guestv1.WatchRequest{})); err == nil {
					s.Receive()
					err = s.Err()
					s.Close()
				}
			} else {
				_, err = c.AdjustClock(t.Context(), connect.NewRequest(&guestv1.AdjustClockRequest{}))
			}
			if err == nil {
				t.Error("it is taken")
			}
			// The rest of a frame is read and thrown away.
			if n := l.sent.Load(); n > 2*maxMessage && name != "a long frame" {
				t.Errorf("%d bytes were read of it", n)
			}
		})
	}
}
