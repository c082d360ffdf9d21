package names

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const (
	// patience bounds a whole exchange: a program on the host waits for twice 5 s.
	patience = 10 * time.Second
	// hedge is the delay before the next server is asked too. A program on the host waits for
	// 5 s.
	hedge = time.Second
	// resend is the delay before a datagram counts as lost.
	resend = 2 * time.Second
	// slowFor is how long a server is asked last after another one overtook it.
	slowFor = 30 * time.Second
)

// errNoServer says that the host has no server to ask.
var errNoServer = errors.New("no DNS server is configured on the host")

// exchange asks the servers for a name until one has an answer. It asks the next server after
// one refuses or fails, and in parallel to a slow one. The answer has its own id.
func (r *Resolver) exchange(ctx context.Context, query []byte, name string, via Transport) ([]byte, error) {
	servers := r.servers(name)
	if len(servers) == 0 {
		return nil, errNoServer
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type result struct {
		from   int
		answer []byte
		err    error
	}
	results := make(chan result, len(servers)) // so that no sender blocks
	asked, open := 0, 0
	next := func() {
		if asked < len(servers) {
			from := asked
			asked, open = asked+1, open+1
			go func() {
				answer, err := ask(ctx, servers[from], query, via)
				results <- result{from, answer, err}
			}()
		}
	}
	next()
	timer := time.NewTicker(hedge)
	defer timer.Stop()
	var refused []byte
	var errs error
	for open > 0 {
		select {
		case <-timer.C:
			next()
		case res := <-results:
			open--
			switch {
			case res.err != nil:
				errs = errors.Join(errs, res.err)
				next()
			case final(res.answer):
				r.noteSlow(servers[res.from], false)
				for i := range res.from {
					r.noteSlow(servers[i], true)
				}
				return res.answer, nil
			default:
				if refused == nil {
					refused = res.answer
				}
				next()
			}
		}
	}
	if refused != nil {
		return refused, nil
	}
	return nil, errs
}

// final reports whether no other server need be asked.
func final(answer []byte) bool {
	switch answer[3] & 0xf {
	case dns.RcodeServerFailure, dns.RcodeNotImplemented, dns.RcodeRefused:
		return false
	}
	return true
}

// ask asks one server, from its own port, so that nobody can guess the port.
func ask(ctx context.Context, server netip.AddrPort, query []byte, via Transport) ([]byte, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, string(via), server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	query = append([]byte(nil), query...)
	binary.BigEndian.PutUint16(query, uint16(rand.Uint32()))
	if via == TCP {
		return askStream(conn, query)
	}
	return askDatagram(ctx, conn, query)
}

func askDatagram(ctx context.Context, conn net.Conn, query []byte) ([]byte, error) {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		if _, err := conn.Write(query); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(time.Now().Add(resend))
		if ctx.Err() != nil { // ctx may have ended before SetReadDeadline
			return nil, ctx.Err()
		}
		for {
			n, err := conn.Read(buf)
			if err == nil && sameQuestion(query, buf[:n]) {
				return buf[:n], nil
			}
			var late net.Error
			if errors.As(err, &late) && late.Timeout() && ctx.Err() == nil {
				break
			}
			if err != nil {
				return nil, err
			}
		}
	}
}

func askStream(conn net.Conn, query []byte) ([]byte, error) {
	if err := WriteFrame(conn, query); err != nil {
		return nil, err
	}
	answer, err := ReadFrame(conn)
	if err == nil && !sameQuestion(query, answer) {
		err = fmt.Errorf("%v answers something else", conn.RemoteAddr())
	}
	return answer, err
}

// ReadFrame reads a message in the form for TCP: after its length in 2 bytes.
func ReadFrame(r io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	m := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(r, m)
	return m, err
}

// WriteFrame writes a message in the form of [ReadFrame].
func WriteFrame(w io.Writer, m []byte) error {
	_, err := w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
	return err
}
