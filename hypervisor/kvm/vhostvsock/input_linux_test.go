package vhostvsock

import (
	"encoding/binary"
	"testing"
	"time"
)

// FuzzPackets feeds arbitrary packets to the streams of a device whose guest never answers.
// Each packet takes 8 bytes of input: two for the operation and flags, one each for the
// ports, four for credit and length.
func FuzzPackets(f *testing.F) {
	step := func(op, flags, guest, host byte, n, credit uint16) []byte {
		b := []byte{op, flags, guest, host, 0, 0, 0, 0}
		binary.LittleEndian.PutUint16(b[4:], n)
		binary.LittleEndian.PutUint16(b[6:], credit)
		return b
	}
	join := func(steps ...[]byte) (all []byte) {
		for _, s := range steps {
			all = append(all, s...)
		}
		return all
	}
	f.Add(join(step(opRequest, 0, 1, 5, 0, 100), step(opRW, 0, 1, 5, 700, 0), step(opShutdown, shutdownBoth, 1, 5, 0, 0)))
	f.Add(join(step(opRequest, 0, 1, 5, 0, 0), step(opCreditRequest, 0, 1, 5, 0, 9), step(opRst, 0, 1, 5, 0, 0), step(opRequest, 0, 1, 5, 0, 0)))
	f.Add(join(step(opResponse, 0, 9, 0, 0, 10), step(opRW, 0, 9, 0, 65535, 0), step(8, 0, 9, 0, 0, 0)))
	f.Add(join(step(opRequest, 0, 1, 5, 0, 0), step(opRequest, 0, 1, 5, 0, 0), step(opRW, 0x80, 1, 5, 1, 0)))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := New(Config{GuestCID: 3, MaxStreams: 8, Backlog: 4, StreamBuffer: minStreamBuffer})
		l, err := d.Listen(5)
		if err != nil {
			t.Fatal(err)
		}
		dialing, err := d.newDial(9)
		if err != nil {
			t.Fatal(err)
		}
		dialing.packet(opRequest) // as if it had been sent
		body := make([]byte, maxPayload)
		var accepted []*stream
		for ; len(in) >= 8; in = in[8:] {
			h := header{
				SrcCID: 3, DstCID: hostCID, SrcPort: uint32(in[2]), DstPort: uint32(in[3]), Type: typeStream,
				Op: uint16(in[0]), Flags: uint32(in[1]), Len: uint32(binary.LittleEndian.Uint16(in[4:])),
				BufAlloc: uint32(binary.LittleEndian.Uint16(in[6:])), FwdCnt: uint32(in[1]),
			}
			if h.DstPort == 0 {
				h.DstPort = dialing.key.local
			}
			if s := d.input(&h, [][]byte{body[:h.Len/2], body[h.Len/2:]}); s != nil {
				sendAll(t, s)
			}
			d.rx.drop()
			accepted = fuzzHost(d, l.(*listener), accepted, in[1])
			if n := len(d.all()); n > 8 {
				t.Fatalf("%d streams", n)
			}
		}
		d.Close()
		for _, s := range append(accepted, dialing) {
			s.Close()
		}
		if d.reserved != 0 || len(d.all()) != 0 {
			t.Fatalf("%d bytes promised, %d streams", d.reserved, len(d.all()))
		}
	})
}

// sendAll discards all packets that s has to send.
func sendAll(t *testing.T, s *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := 0; ; n++ {
		op := s.nextOp()
		if op == opInvalid {
			return
		}
		if n > 10 {
			t.Fatalf("the stream never stops sending %d", op)
		}
		s.packet(op)
		s.sent(op, min(len(s.writeBuf), int(s.credit())))
	}
}

// fuzzHost does the action of the byte on the host's side.
func fuzzHost(d *Device, l *listener, conns []*stream, what byte) []*stream {
	d.mu.Lock()
	waiting := len(l.queue) > 0
	d.mu.Unlock()
	if what&0x80 != 0 && waiting {
		c, err := l.Accept()
		if err == nil {
			conns = append(conns, c.(*stream))
		}
	}
	if len(conns) == 0 {
		return conns
	}
	s := conns[int(what)%len(conns)]
	switch what >> 4 & 7 {
	case 1:
		_ = s.SetDeadline(time.Now().Add(-1))
	case 2:
		_ = s.CloseWrite()
	case 3:
		_ = s.CloseRead()
	case 4:
		_ = s.Close()
	case 5, 6:
		_ = s.SetDeadline(time.Unix(1, 0))
		s.readDL.Set(time.Time{})
		s.mu.Lock()
		has := s.buf.Len() > 0
		s.mu.Unlock()
		if has {
			_, _ = s.Read(make([]byte, 300))
		}
	}
	return conns
}
