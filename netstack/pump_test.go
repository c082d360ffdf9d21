package netstack

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
)

// reads is a connection whose reads return these numbers of bytes, or as many as fit.
type reads struct {
	data  []byte
	sizes []int
	asked []int // buffer size of each read
}

func (r *reads) Read(p []byte) (int, error) {
	r.asked = append(r.asked, len(p))
	if len(r.sizes) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.sizes[0])], r.data)
	r.data, r.sizes = r.data[n:], r.sizes[1:]
	return n, nil
}

// TestPump expects a large buffer during bulk transfers, and a small one otherwise.
func TestPump(t *testing.T) {
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	const much = 1 << 20
	r := &reads{data: data, sizes: []int{10, much, much, much, 60000, much, 10, 10}}
	var out bytes.Buffer
	if err := pump(&out, r, largeBuffer); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Bytes(), data[:out.Len()]) || out.Len() != len(data)-len(r.data) {
		t.Error("what comes out is not what went in")
	}
	const kib = 1 << 10
	want := []int{8 * kib, 8 * kib, 32 * kib, 128 * kib, 128 * kib, 128 * kib, 128 * kib, 8 * kib, 8 * kib}
	for i, got := range r.asked {
		if i >= len(want) || got != want[i] {
			t.Fatalf("the reads had room for %v, want %v", r.asked, want)
		}
	}
	if err := pump(io.Discard, io.MultiReader(bytes.NewReader(data), failing{}), largeBuffer); err != io.ErrUnexpectedEOF {
		t.Errorf("a reader that fails: %v", err)
	}
	if err := pump(failing{}, bytes.NewReader(data), largeBuffer); err != io.ErrUnexpectedEOF {
		t.Errorf("a writer that fails: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error)  { return 0, io.ErrUnexpectedEOF }
func (failing) Write([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
