package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	w := NewWriter(&b)
	big := bytes.Repeat([]byte{7}, MaxPayload)
	for _, p := range [][]byte{nil, []byte("x"), big} {
		if err := w.Send(FrameStdout, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.SendMessage(FrameExit, &guestv1.Exit{Code: 3}); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&b)
	for _, want := range [][]byte{nil, []byte("x"), big} {
		typ, p, err := r.Next()
		if err != nil || typ != FrameStdout || !bytes.Equal(p, want) {
			t.Fatalf("Next() = %d, %d bytes, %v; want %d bytes of stdout", typ, len(p), err, len(want))
		}
	}
	var exit guestv1.Exit
	if err := r.Expect(FrameExit, &exit); err != nil || exit.Code != 3 {
		t.Fatalf("Expect(exit) = %v, code %d", err, exit.Code)
	}
	if _, _, err := r.Next(); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF", err)
	}
}

func TestFrameTooLong(t *testing.T) {
	if err := NewWriter(io.Discard).Send(FrameStdout, make([]byte, MaxPayload+1)); err == nil {
		t.Error("a frame over the limit was sent")
	}
	var h [HeaderSize]byte
	PutHeader(h[:], FrameStdout, MaxPayload+1)
	var fe frameError
	if _, _, err := NewReader(bytes.NewReader(h[:])).Next(); !errors.As(err, &fe) {
		t.Errorf("a frame over the limit was read: %v", err)
	}
}

func TestFrameCutShort(t *testing.T) {
	var b bytes.Buffer
	NewWriter(&b).Send(FrameStdin, []byte("hello"))
	for n := 1; n < b.Len(); n++ {
		if _, _, err := NewReader(bytes.NewReader(b.Bytes()[:n])).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d bytes: %v, want io.ErrUnexpectedEOF", n, err)
		}
	}
}

// FuzzReader: whatever decodes, encodes to the same bytes again.
func FuzzReader(f *testing.F) {
	var seed bytes.Buffer
	w := NewWriter(&seed)
	w.SendMessage(FrameRequest, &guestv1.StreamRequest{Version: Version, Kind: &guestv1.StreamRequest_Exec{Exec: &guestv1.Exec{Tty: true}}})
	w.Send(FrameStdin, []byte("in"))
	w.Send(FrameStdin, nil)
	w.Send(FrameSignal, []byte{15})
	f.Add(seed.Bytes())
	f.Add([]byte{16, 0xff, 0xff, 0xff})
	f.Add([]byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		var again bytes.Buffer
		w := NewWriter(&again)
		for {
			typ, p, err := r.Next()
			if err != nil {
				break
			}
			if typ == FrameRequest {
				decode(p, &guestv1.StreamRequest{})
			}
			if err := w.Send(typ, p); err != nil {
				t.Fatalf("a frame that was read cannot be sent: %v", err)
			}
		}
		if !bytes.HasPrefix(b, again.Bytes()) {
			t.Fatal("frames encode to other bytes than they were read from")
		}
		if rest := b[again.Len():]; len(rest) >= HeaderSize {
			if n := int(binary.BigEndian.Uint32(rest) & 0xffffff); n <= MaxPayload && len(rest) >= HeaderSize+n {
				t.Fatalf("a whole frame of %d bytes was left unread", n)
			}
		}
	})
}
