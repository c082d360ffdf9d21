package network

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
)

// packets is a card: each read takes a frame, each write leaves one.
type packets struct {
	in, out chan []byte
	closed  chan struct{}
}

func newPackets() *packets {
	return &packets{in: make(chan []byte, 10), out: make(chan []byte, 10), closed: make(chan struct{})}
}

func (p *packets) Read(b []byte) (int, error) {
	select {
	case f := <-p.in:
		return copy(b, f), nil
	case <-p.closed:
		return 0, io.ErrClosedPipe
	}
}

func (p *packets) Write(b []byte) (int, error) {
	p.out <- bytes.Clone(b)
	return len(b), nil
}

func (p *packets) Close() error {
	close(p.closed)
	return nil
}

// TestCarry moves frames of many sizes both ways, also where the stream has them in pieces.
func TestCarry(t *testing.T) {
	card := newPackets()
	host, stream := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Carry(card, stream) }()
	for _, size := range []int{1, 60, 1514, 65534, maxFrame} {
		frame := bytes.Repeat([]byte{byte(size)}, size)
		card.in <- frame
		got := make([]byte, 4+size)
		if _, err := io.ReadFull(host, got); err != nil {
			t.Fatal(err)
		}
		if int(binary.BigEndian.Uint32(got)) != size || !bytes.Equal(got[4:], frame) {
			t.Errorf("a frame of %d bytes has changed on its way to the host", size)
		}
		for len(got) > 0 {
			n := min(len(got), 3+size/3)
			host.Write(got[:n])
			got = got[n:]
		}
		if got := <-card.out; !bytes.Equal(got, frame) {
			t.Errorf("a frame of %d bytes has changed on its way to the guest", size)
		}
	}
	go host.Write([]byte{0, 1, 0, 1}) // more than a frame has
	if err := <-ended; err == nil {
		t.Error("a frame of 65537 bytes was taken")
	}
	if _, err := host.Read(make([]byte, 1)); err == nil {
		t.Error("the stream stays open")
	}
}
