package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest"
)

// frames writes stdin frames of the given lengths, and what ends the stream.
func frames(end []byte, lengths ...int) *bytes.Buffer {
	var b bytes.Buffer
	w := guest.NewWriter(&b)
	for i, n := range lengths {
		w.Send(guest.FrameStdin, bytes.Repeat([]byte{byte('a' + i)}, n))
	}
	b.Write(end)
	return &b
}

func TestImportReader(t *testing.T) {
	whole := []byte{byte(guest.FrameStdin), 0, 0, 0}
	for name, test := range map[string]struct {
		in   *bytes.Buffer
		want int   // bytes that are read
		err  error // or nil for any but io.EOF
	}{
		"empty":           {frames(whole), 0, io.EOF},
		"whole":           {frames(whole, 3, 70_000, 1), 70_004, io.EOF},
		"cut off":         {frames(nil, 5, 7), 12, io.ErrUnexpectedEOF},
		"cut in a frame":  {frames([]byte{byte(guest.FrameStdin), 0, 0, 9, 'x'}, 5), 5, io.ErrUnexpectedEOF},
		"a signal":        {frames([]byte{byte(guest.FrameSignal), 0, 0, 1, 15}, 5), 5, nil},
		"all the window":  {frames(whole, guest.MaxPayload, guest.MaxPayload, guest.MaxPayload, guest.MaxPayload), guest.StdinWindow, io.EOF},
		"no frame at all": {bytes.NewBuffer(nil), 0, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r := newImportReader(guest.NewReader(test.in), guest.NewWriter(&out))
			var err error
			n := 0
			for buf := make([]byte, 10_000); err == nil; {
				var k int
				k, err = r.Read(buf)
				n += k
			}
			if n != test.want || test.err != nil && !errors.Is(err, test.err) || test.err == nil && err == io.EOF {
				t.Errorf("%d bytes, %v; want %d, %v", n, err, test.want, test.err)
			}
			granted := 0
			for g := guest.NewReader(&out); ; {
				typ, p, err := g.Next()
				if err != nil {
					break
				}
				if typ != guest.FrameWindow {
					t.Fatalf("a frame of type %d goes out", typ)
				}
				granted += int(binary.BigEndian.Uint32(p))
			}
			if granted < importWindow || granted > importWindow+n {
				t.Errorf("%d bytes are granted, of which %d were used", granted, n)
			}
		})
	}
}

// A host that keeps to no window is cut off.
func TestImportReaderFlooded(t *testing.T) {
	lengths := make([]int, importWindow/guest.MaxPayload+1)
	for i := range lengths {
		lengths[i] = guest.MaxPayload
	}
	r := newImportReader(guest.NewReader(frames(nil, lengths...)), guest.NewWriter(io.Discard))
	r.freed = -importWindow // as if nothing were granted again
	if _, err := io.Copy(io.Discard, r); err == nil || !strings.Contains(err.Error(), "granted") {
		t.Errorf("err = %v", err)
	}
}

// The buffer keeps bytes in order however they wrap around in it.
func TestStdinBufferWraps(t *testing.T) {
	in := newStdinBuffer(guest.NewWriter(io.Discard))
	var want, got bytes.Buffer
	buf := make([]byte, 40_000)
	for i := range 400 {
		p := bytes.Repeat([]byte{byte(i)}, 1+i*37%30_000)
		want.Write(p)
		if err := in.put(p); err != nil {
			t.Fatal(err)
		}
		if i%3 > 0 {
			n, err := in.Read(buf[:1+i*53%len(buf)])
			if err != nil {
				t.Fatal(err)
			}
			got.Write(buf[:n])
		}
		for in.size > guest.StdinWindow/2 {
			n, _ := in.Read(buf)
			got.Write(buf[:n])
		}
	}
	in.put(nil)
	if _, err := got.ReadFrom(in); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("other bytes come out")
	}
	if len(in.ring) > guest.StdinWindow {
		t.Errorf("the ring has %d bytes", len(in.ring))
	}
	if err := in.put(make([]byte, guest.StdinWindow+1)); err != nil {
		t.Errorf("after the end nobody reads it: %v", err)
	}
}
