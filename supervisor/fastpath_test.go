package supervisor

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsub/lsub/netstack/forward"
	"github.com/lsub/lsub/netstack/guesttcp"
)

// answerer is a card whose guest agrees to every connection, or says nothing.
type answerer struct {
	link   *guesttcp.Link
	silent atomic.Bool
	frames chan []byte
}

func (a *answerer) Send(parts ...[]byte) bool {
	if !a.silent.Load() {
		a.frames <- slices.Concat(parts...)
	}
	return true
}

// serve answers what is sent: a SYN with a SYN and an acknowledgement, by IPv4.
func (a *answerer) serve(ctx context.Context) {
	const tcp = 12 + 14 + 20
	for {
		var f []byte
		select {
		case <-ctx.Done():
			return
		case f = <-a.frames:
		}
		if f[tcp+13] != 2 {
			continue
		}
		ports := binary.BigEndian.Uint32(f[tcp:])
		binary.BigEndian.PutUint32(f[tcp:], ports<<16|ports>>16)
		binary.BigEndian.PutUint32(f[tcp+8:], binary.BigEndian.Uint32(f[tcp+4:])+1)
		f[tcp+13] = 2 | 16
		a.link.Receive([][]byte{f})
		a.link.Flush()
	}
}

func TestFastPath(t *testing.T) {
	card := &answerer{frames: make(chan []byte, 64)}
	card.silent.Store(true)
	d := &fastPath{log: slog.New(slog.DiscardHandler)}
	n := &network{}
	card.link = guesttcp.New(guesttcp.Config{Card: card})
	n.link = card.link
	d.use(n.Connect)
	go card.serve(t.Context())
	defer n.Detach()
	to := forward.Target{Distro: "debian", Network: forward.TCP, Address: "127.0.0.1:80", Shared: true}
	listeners := []forward.Listener{{Network: forward.TCP, Addr: netip.MustParseAddrPort("0.0.0.0:80")}}
	connect := func(to forward.Target) (bool, time.Duration) {
		start := time.Now()
		conn, answer := d.connect(context.Background(), to)
		if conn == nil {
			return false, time.Since(start)
		}
		defer conn.Close()
		if _, err := answer(); err != nil {
			t.Error(err)
		}
		return true, time.Since(start)
	}

	if ok, _ := connect(to); ok {
		t.Error("a guest without its end of the way is asked")
	}
	d.set(true, listeners)
	// Nobody answers: it takes a while to find out, once.
	if ok, took := connect(to); ok || took < firstTimeout {
		t.Errorf("silence is an answer: %t after %v", ok, took)
	}
	if ok, took := connect(to); ok || took >= firstTimeout {
		t.Errorf("a silent port is asked again: %t after %v", ok, took)
	}
	// Who listens there later is another.
	d.set(true, nil)
	d.set(true, listeners)
	card.silent.Store(false)
	if ok, _ := connect(to); !ok {
		t.Error("a port that answers is not connected to")
	}
	if _, known := d.ask(netip.MustParseAddrPort(to.Address)); !known {
		t.Error("the answer was not learned")
	}
	if ok, _ := connect(to); !ok {
		t.Error("a port that has answered is not connected to")
	}
	for name, other := range map[string]forward.Target{
		"in a network of its own": {Network: forward.TCP, Address: to.Address},
		"UDP":                     {Network: forward.UDP, Address: to.Address, Shared: true},
		"a socket":                {Network: forward.Unix, Address: "/run/docker.sock", Shared: true},
		"another address":         {Network: forward.TCP, Address: "192.168.127.2:80", Shared: true},
	} {
		if ok, _ := connect(other); ok {
			t.Errorf("%s: taken", name)
		}
	}
	// What is open ends with the VM.
	conn, _ := d.connect(context.Background(), to)
	if conn == nil {
		t.Fatal("not connected")
	}
	n.Detach()
	if _, err := conn.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("after the VM's end: %v", err)
	}
	if ok, _ := connect(to); ok {
		t.Error("a VM that is gone is asked")
	}
}
