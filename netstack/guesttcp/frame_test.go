package guesttcp

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
)

// answerTo turns one of our frames into the guest's, with exchanged ports.
func answerTo(frame []byte, v6 bool) []byte {
	b := slices.Clone(frame)
	at := ipAt + ip4Len
	if v6 {
		at = ipAt + ip6Len
	}
	copy(b[at:], frame[at+2:at+4])
	copy(b[at+2:], frame[at:at+2])
	return b
}

func TestFrames(t *testing.T) {
	for _, f := range []flow{{80, 61000, false}, {443, 65535, true}} {
		var buf [headMax]byte
		h := head{buf: &buf}
		h.init(f)
		payload := bytes.Repeat([]byte("lsub"), 1000)
		h.set(flagACK|flagPSH, 1<<31, 7, 512, len(payload))
		whole := answerTo(append(slices.Clone(h.bytes()), payload...), f.v6)
		for _, cut := range []int{1, 12, 30, 61, 100, len(whole) - 1} {
			var s segment
			ours, err := s.decode([][]byte{whole[:cut], nil, whole[cut:]})
			if !ours || err != nil {
				t.Fatalf("%+v, cut at %d: %t, %v", f, cut, ours, err)
			}
			got := bytes.Join(s.payload, nil)
			if s.flow != f || s.seq != 1<<31 || s.ack != 7 || s.window != 512 || s.flags != flagACK|flagPSH || s.n != len(payload) || !bytes.Equal(got, payload) {
				t.Errorf("%+v, cut at %d: %+v", f, cut, s)
			}
		}
		h.set(flagSYN, 1, 0, 65535, 0)
		var s segment
		if ours, err := s.decode([][]byte{answerTo(h.bytes(), f.v6)}); !ours || err != nil || s.mss != guestSegment || s.scale != windowScale || s.n != 0 {
			t.Errorf("%+v: SYN: %t, %v, %+v", f, ours, err, s)
		}
	}
}

// TestChecksums checks a frame's sums as a receiver does.
func TestChecksums(t *testing.T) {
	for _, f := range []flow{{80, 61000, false}, {80, 61000, true}} {
		var buf [headMax]byte
		h := head{buf: &buf}
		h.init(f)
		payload := []byte("an odd number of bytes.")
		h.set(flagACK, 99, 98, 97, len(payload))
		frame := append(slices.Clone(h.bytes()), payload...)
		start := vnetLen + int(binary.LittleEndian.Uint16(frame[6:]))
		at := start + int(binary.LittleEndian.Uint16(frame[8:]))
		if frame[0] != 1 || start != h.tcp {
			t.Fatalf("%+v: flags %d, checksum from %d", f, frame[0], start)
		}
		// The guest's kernel may do this for NEEDS_CSUM.
		rest := frame[start:]
		if len(rest)%2 != 0 {
			rest = append(slices.Clone(rest), 0)
		}
		binary.BigEndian.PutUint16(frame[at:], ^fold(sum(rest)))
		ip := frame[ipAt:h.tcp]
		pseudo := uint32(protTCP + len(frame) - h.tcp)
		if f.v6 {
			pseudo += sum(ip[8:40])
		} else {
			pseudo += sum(ip[12:20])
			if fold(sum(ip)) != 0xffff {
				t.Errorf("IPv4 header's sum is %#x", fold(sum(ip)))
			}
		}
		rest = frame[start:]
		if len(rest)%2 != 0 {
			rest = append(slices.Clone(rest), 0)
		}
		if got := fold(pseudo + sum(rest)); got != 0xffff {
			t.Errorf("%+v: TCP's sum is %#x", f, got)
		}
	}
}

func TestNotOurs(t *testing.T) {
	var buf [headMax]byte
	h := head{buf: &buf}
	h.init(flow{80, 61000, false})
	h.set(flagACK, 1, 1, 1, 0)
	good := answerTo(h.bytes(), false)
	for name, change := range map[string]func(b []byte) []byte{
		"another card":      func(b []byte) []byte { b[vnetLen] = 2; return b },
		"runt":              func(b []byte) []byte { return b[:vnetLen+13] },
		"no more than ours": func(b []byte) []byte { return nil },
	} {
		var s segment
		if ours, _ := s.decode([][]byte{change(slices.Clone(good))}); ours {
			t.Errorf("%s is ours", name)
		}
	}
	for name, change := range map[string]func(b []byte) []byte{
		"ARP":                func(b []byte) []byte { b[ipAt-1] = 6; return b },
		"UDP":                func(b []byte) []byte { b[ipAt+9] = 17; return b },
		"fragment":           func(b []byte) []byte { b[ipAt+7] = 1; return b },
		"other source":       func(b []byte) []byte { b[ipAt+15] = 2; return b },
		"short IP":           func(b []byte) []byte { return b[:ipAt+10] },
		"long total":         func(b []byte) []byte { b[ipAt+2] = 1; return b },
		"short total":        func(b []byte) []byte { b[ipAt+2], b[ipAt+3] = 0, 20; return b },
		"header beyond":      func(b []byte) []byte { b[ipAt+ip4Len+12] = 0xf0; return b },
		"header of nothing":  func(b []byte) []byte { b[ipAt+ip4Len+12] = 0; return b },
		"IP header too long": func(b []byte) []byte { b[ipAt] = 0x4f; return b },
	} {
		var s segment
		if ours, err := s.decode([][]byte{change(slices.Clone(good))}); !ours || err == nil {
			t.Errorf("%s: %t, %v", name, ours, err)
		}
	}
}

// cardFunc is a card from a function.
type cardFunc func(parts ...[]byte) bool

func (f cardFunc) Send(parts ...[]byte) bool { return f(parts...) }

// FuzzReceive has a hostile guest send frames to a link with connections in every state.
func FuzzReceive(f *testing.F) {
	var buf [headMax]byte
	h := head{buf: &buf}
	for _, v6 := range []bool{false, true} {
		h.init(flow{80, 61000, v6})
		for _, flags := range []byte{flagSYN | flagACK, flagACK, flagACK | flagPSH, flagFIN | flagACK, flagRST, flagRST | flagACK} {
			h.set(flags, 1000, 1, 100, 4)
			f.Add(answerTo(append(slices.Clone(h.bytes()), "abcd"...), v6), uint16(30), uint32(0), uint32(0))
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte, cut uint16, seq, ack uint32) {
		l := New(Config{Card: cardFunc(func(parts ...[]byte) bool {
			n := 0
			for _, p := range parts {
				n += len(p)
			}
			if n > headMax+maxSegment {
				t.Errorf("a frame of %d bytes", n)
			}
			return true
		})})
		defer l.Close()
		// A connection in each state, with sequence numbers that the frame may hit.
		for i := range uint16(3) {
			for _, v6 := range []bool{false, true} {
				c := newConn(l, flow{80, FirstPort + i, v6}, ack, minBuffer)
				l.conns[c.flow] = c
				c.start()
				if i == 0 {
					continue
				}
				c.state, c.answered, c.mss = stateOpen, true, maxSegment
				c.una, c.rcv, c.acked, c.told, c.edge = c.nxt, seq, seq, seq+minBuffer, c.nxt+100
				go c.Write(make([]byte, 300))
				if i == 2 {
					c.CloseWrite()
				}
			}
		}
		k := min(int(cut), len(frame))
		l.Receive([][]byte{frame[:k], frame[k:]})
		l.Flush()
		l.Room()
		for _, c := range l.all() {
			c.mu.Lock()
			if c.buf.Len() > c.room {
				t.Errorf("%d bytes are held, of %d", c.buf.Len(), c.room)
			}
			c.mu.Unlock()
		}
	})
}
