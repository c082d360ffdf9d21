package echo

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
)

func TestBatch(t *testing.T) {
	want := []Order{
		{Do: Make | Modify, Dir: 1, Name: "f", Mode: 0o100644},
		{Do: Rename, Dir: 1 << 40, Name: strings.Repeat("x", 255), Path: "a/b", ToDir: 3, ToPath: "c", To: "\xff"},
		{Do: Attributes, Dir: 7},
	}
	var b bytes.Buffer
	for range 2 {
		if err := WriteBatch(&b, want); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if got, err := ReadBatch(&b); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if _, err := ReadBatch(&b); err != io.EOF {
		t.Error(err)
	}
	if err := WriteBatch(&b, []Order{{Name: strings.Repeat("x", 256)}}); err == nil {
		t.Error("a name of 256 bytes was sent")
	}
}

// FuzzBatch reads anything. What is read can be sent again.
func FuzzBatch(f *testing.F) {
	var b bytes.Buffer
	WriteBatch(&b, []Order{{Do: Rename, Dir: 1, Name: "a", ToDir: 2, To: "b", Mode: 0o40755}, {Do: Renew, Name: "c"}})
	f.Add(b.Bytes())
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, input []byte) {
		orders, err := ReadBatch(bytes.NewReader(input))
		if err != nil {
			return
		}
		var again bytes.Buffer
		if err := WriteBatch(&again, orders); err != nil {
			t.Fatal(err)
		}
		if got := again.Bytes(); !bytes.Equal(got, input[:len(got)]) {
			t.Errorf("%x became %x", input, got)
		}
	})
}
