package hvtest

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/virtionet"
)

// framesPort is where the host takes a stream of frames from the guest.
const framesPort = 12

var (
	guestMAC = net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}
	hostMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
)

// wire is the host's end of a network card: the frames that come from it, and a function that
// sends it one.
type wire struct {
	mtu  int
	in   chan []byte
	send func(frame []byte) error
	room chan struct{} // holds a token after Room
}

func newWire(mtu int) *wire {
	return &wire{mtu: mtu, in: make(chan []byte, 16), room: make(chan struct{}, 1)}
}

// frame returns a frame for the guest with random content, size bytes long.
func (w *wire) frame(size int) []byte {
	f := make([]byte, size)
	copy(f, guestMAC)
	copy(f[6:], hostMAC)
	binary.BigEndian.PutUint16(f[12:], protocol.EtherType)
	for i := protocol.HeaderLen; i < size; i++ {
		f[i] = byte(rand.Uint32())
	}
	return f
}

// echo sends frames of many sizes and waits for the guest's answer to each.
func (w *wire) echo(t *testing.T, h Harness) {
	t.Helper()
	for _, size := range []int{60, 61, 590, 1514, w.mtu / 2, w.mtu - 1, w.mtu + protocol.HeaderLen} {
		out := w.frame(size)
		var err error
		h.Within(t, fmt.Sprintf("room for a frame of %d bytes", size), func() { err = w.send(bytes.Clone(out)) })
		if err != nil {
			t.Fatalf("send a frame of %d bytes: %v", size, err)
		}
		var in []byte
		h.Within(t, fmt.Sprintf("the echo of a frame of %d bytes", size), func() { in = <-w.in })
		if want := bytes.Clone(out); !protocol.EchoFrame(want) || !bytes.Equal(in, want) {
			t.Errorf("a frame of %d bytes came back as %d other bytes", size, len(in))
		}
	}
}

// keep keeps a frame that the test has asked for. The guest's kernel sends others too.
func (w *wire) keep(frame []byte) {
	if len(frame) < protocol.HeaderLen || binary.BigEndian.Uint16(frame[12:]) != protocol.EtherType {
		return
	}
	select {
	case w.in <- bytes.Clone(frame):
	default: // nobody waits for it: the test has failed
	}
}

// serve is [hypervisor.NIC].Serve.
func (w *wire) serve(ctx context.Context, conn net.Conn, framing virtionet.Framing) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	buf := make([]byte, 4+protocol.MaxFrame)
	for {
		if framing == virtionet.Datagram {
			n, err := conn.Read(buf)
			if err != nil {
				return err
			}
			w.keep(buf[:n])
			continue
		}
		if _, err := io.ReadFull(conn, buf[:4]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(buf)
		if n > protocol.MaxFrame {
			return fmt.Errorf("a frame of %d bytes", n)
		}
		if _, err := io.ReadFull(conn, buf[4:4+n]); err != nil {
			return err
		}
		w.keep(buf[4 : 4+n])
	}
}

// sendTo returns a function that sends a frame over a connection.
func sendTo(conn net.Conn, framing virtionet.Framing) func([]byte) error {
	return func(frame []byte) error {
		if framing == virtionet.Stream {
			frame = append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
		}
		_, err := conn.Write(frame)
		return err
	}
}

// attach is [hypervisor.NIC].Attach.
func (w *wire) attach(card virtionet.Card) virtionet.Receiver {
	w.send = func(frame []byte) error {
		for !card.Send(make([]byte, virtionet.HeaderLen), frame) {
			<-w.room
		}
		return nil
	}
	return w
}

// Receive keeps a frame.
func (w *wire) Receive(parts [][]byte) {
	if f := bytes.Join(parts, nil); len(f) > virtionet.HeaderLen {
		w.keep(f[virtionet.HeaderLen:])
	}
}

// Flush has nothing to do.
func (w *wire) Flush() {}

// Room signals that there is room.
func (w *wire) Room() {
	select {
	case w.room <- struct{}{}:
	default:
	}
}

// testFrames has a network that does not use the guest's memory.
func testFrames(t *testing.T, h Harness) { h.testNIC(t, false) }

// testCard has a network that may use the guest's memory.
func testCard(t *testing.T, h Harness) { h.testNIC(t, true) }

func (h Harness) testNIC(t *testing.T, attach bool) {
	if c, ok := h.Driver.(hypervisor.Cardless); ok {
		cfg := h.testConfig(t)
		cfg.NIC = &hypervisor.NIC{MAC: guestMAC, MTU: 1500, Serve: newWire(1500).serve}
		h.refuse(t, cfg)
		t.Logf("no card: %v", c.NoCard())
		return
	}
	for _, mtu := range []int{1500, 65520} {
		t.Run(fmt.Sprintf("MTU%d", mtu), func(t *testing.T) {
			w := newWire(mtu)
			taken := make(chan string, 2) // how the driver takes the network
			cfg := h.testConfig(t)
			cfg.NIC = &hypervisor.NIC{MAC: guestMAC, MTU: mtu}
			ended := make(chan error, 1)
			cfg.NIC.Serve = func(ctx context.Context, conn net.Conn, framing virtionet.Framing) error {
				w.send = sendTo(conn, framing)
				taken <- fmt.Sprintf("Serve with framing %d", framing)
				err := w.serve(ctx, conn, framing)
				ended <- err
				return err
			}
			if attach {
				cfg.NIC.Attach = func(card virtionet.Card) virtionet.Receiver {
					taken <- "Attach"
					ended <- nil
					return w.attach(card)
				}
			}
			vm, _ := h.Boot(t, cfg)
			if got, want := h.Control(t, vm, "nic"), fmt.Sprintf("%v %d", guestMAC, mtu); got != want {
				t.Errorf("the guest has the card %q, want %q", got, want)
			}
			h.Control(t, vm, "frames")
			h.Within(t, "the driver to take the network", func() { t.Log(<-taken) })
			w.echo(t, h)
			if err := vm.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			h.Within(t, "the end of the network", func() { <-ended })
			if len(taken) > 0 {
				t.Errorf("the driver has also used %s", <-taken)
			}
		})
	}
}

// testVSockFrames has the guest open a stream for its frames, as one without a card does.
func testVSockFrames(t *testing.T, h Harness) {
	vm, _ := h.Boot(t, h.testConfig(t))
	l, err := vm.Listen(t.Context(), framesPort)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	defer l.Close()
	h.Control(t, vm, fmt.Sprintf("frames %d", framesPort))
	var conn net.Conn
	h.Within(t, "the guest's stream of frames", func() { conn, err = l.Accept() })
	if err != nil {
		t.Fatalf("Accept: %v", err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(h.timeout()))
	w := newWire(65520)
	w.send = sendTo(conn, virtionet.Stream)
	go w.serve(t.Context(), conn, virtionet.Stream)
	w.echo(t, h)
}
