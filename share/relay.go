package share

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// errStream is a stream that carries no requests.
var errStream = errors.New("malformed stream of FUSE requests")

// Relay carries the requests of a guest to a server in another process, which may die and be
// replaced without the guest's knowledge: requests in progress then fail with EIO. connect
// starts a server, or another one when it has died, and returns a connection to it. Relay
// returns when guest ends or ctx is done; it closes guest.
func Relay(ctx context.Context, guest io.ReadWriteCloser, connect func(context.Context) (net.Conn, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	r := &streamRelay{guest: guest, connect: connect, pending: map[uint64]uint32{}}
	stop := context.AfterFunc(ctx, func() {
		guest.Close()
		r.hangUp()
	})
	err := r.run(ctx)
	cancel()
	stop()
	guest.Close()
	r.hangUp()
	r.wg.Wait()
	if ctx.Err() != nil && !errors.Is(err, errStream) {
		return nil
	}
	return err
}

type streamRelay struct {
	guest   io.ReadWriteCloser
	connect func(context.Context) (net.Conn, error)
	wg      sync.WaitGroup // of answers

	mu      sync.Mutex
	server  net.Conn          // nil when there is none
	pending map[uint64]uint32 // operations of the requests that are not answered, by number

	writing sync.Mutex // of answers to guest
}

// relayRetry is the longest pause between two tries to start a server.
const relayRetry = time.Second

// run carries requests.
func (r *streamRelay) run(ctx context.Context) error {
	buf, from := make([]byte, MaxRequest), bufio.NewReaderSize(r.guest, 64<<10)
	for {
		n, err := readMessage(from, buf, inHeaderLen)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		op, unique := binary.LittleEndian.Uint32(buf[4:]), binary.LittleEndian.Uint64(buf[8:])
		for {
			server, err := r.get(ctx)
			if err != nil {
				return nil // ctx is done
			}
			if !hasNoAnswer(op) {
				r.mu.Lock()
				r.pending[unique] = op
				r.mu.Unlock()
			}
			if _, err := server.Write(buf[:n]); err == nil {
				break
			}
			r.mu.Lock()
			delete(r.pending, unique) // the next server gets it
			r.mu.Unlock()
			r.lost(server)
		}
	}
}

// readMessage reads a message that begins with its length, and has head bytes at least.
func readMessage(from io.Reader, buf []byte, head int) (int, error) {
	if _, err := io.ReadFull(from, buf[:head]); err != nil {
		return 0, err
	}
	n := binary.LittleEndian.Uint32(buf)
	if int64(n) < int64(head) || int64(n) > int64(len(buf)) {
		return 0, errStream
	}
	_, err := io.ReadFull(from, buf[head:n])
	return int(n), err
}

// get returns a connection to a server.
func (r *streamRelay) get(ctx context.Context) (net.Conn, error) {
	r.mu.Lock()
	server := r.server
	r.mu.Unlock()
	for pause := relayRetry / 64; server == nil; pause = min(2*pause, relayRetry) {
		var err error
		if server, err = r.connect(ctx); err == nil {
			break
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server == nil {
		if ctx.Err() != nil {
			server.Close()
			return nil, ctx.Err()
		}
		r.server = server
		r.wg.Go(func() { r.answers(server) })
	}
	return server, nil
}

// answers carries answers until the server is gone.
func (r *streamRelay) answers(server net.Conn) {
	buf, from := make([]byte, MaxAnswer), bufio.NewReaderSize(server, 64<<10)
	for {
		n, err := readMessage(from, buf, outHeaderLen)
		if err != nil {
			r.lost(server)
			return
		}
		r.mu.Lock()
		delete(r.pending, binary.LittleEndian.Uint64(buf[8:]))
		r.mu.Unlock()
		r.writing.Lock()
		_, _ = r.guest.Write(buf[:n]) // the reader hears of its end
		r.writing.Unlock()
	}
}

// lost fails the requests of a server that is gone.
func (r *streamRelay) lost(server net.Conn) {
	server.Close()
	r.mu.Lock()
	if r.server != server {
		r.mu.Unlock()
		return
	}
	r.server = nil
	pending := r.pending
	r.pending = map[uint64]uint32{}
	r.mu.Unlock()
	for unique := range pending {
		var h [outHeaderLen]byte
		n := putHeader(pieces{h[:]}, unique, -5, 0) // EIO
		r.writing.Lock()
		_, _ = r.guest.Write(h[:n])
		r.writing.Unlock()
	}
}

func (r *streamRelay) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.server != nil {
		r.server.Close()
	}
}
