package main

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// bzImage returns a bzImage that holds payload.
func bzImage(payload []byte) []byte {
	b := make([]byte, 5*512+64)
	b[0x1f1] = 4
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x206:], 0x20f)
	binary.LittleEndian.PutUint32(b[0x248:], 64)
	binary.LittleEndian.PutUint32(b[0x24c:], uint32(len(payload)))
	return append(b, payload...)
}

func zstdWithSize(t testing.TB, data []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return binary.LittleEndian.AppendUint32(z.EncodeAll(data, nil), uint32(len(data)))
}

func gzipped(data []byte) []byte {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write(data)
	z.Close()
	return b.Bytes()
}

var (
	elfKernel   = append([]byte("\x7fELF"), bytes.Repeat([]byte("kernel"), 1000)...)
	imageKernel = append(append(make([]byte, 0x38), "ARM\x64"...), bytes.Repeat([]byte("kernel"), 1000)...)
)

func TestUnpackBzImage(t *testing.T) {
	for name, payload := range map[string][]byte{
		"zstd":           zstdWithSize(t, elfKernel),
		"gzip":           gzipped(elfKernel),
		"gzip with size": append(gzipped(elfKernel), 1, 2, 3, 4),
	} {
		got, err := unpackKernel("amd64", bzImage(payload))
		if err != nil || !bytes.Equal(got, elfKernel) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnpackBzImageErrors(t *testing.T) {
	good := zstdWithSize(t, elfKernel)
	old := bzImage(good)
	old[0x207] = 1
	long := bzImage(good)
	long[0x24e] = 0xff
	wrongSize := bytes.Clone(good)
	wrongSize[len(wrongSize)-1]++
	for want, b := range map[string][]byte{
		"not a bzImage":       []byte("MZ"),
		"too old":             old,
		"lies outside":        long,
		"is no ELF":           bzImage(gzipped([]byte("hello"))),
		"unknown compression": bzImage([]byte("hello")),
		"unpacked length":     bzImage(wrongSize),
	} {
		if _, err := unpackKernel("amd64", b); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if _, err := unpackKernel("amd64", bzImage(good[:len(good)-20])); err == nil {
		t.Error("took a payload that is cut off")
	}
}

func TestUnpackImage(t *testing.T) {
	packed := gzipped(imageKernel)
	zboot := make([]byte, 0x50)
	copy(zboot, "MZ\x00\x00zimg")
	binary.LittleEndian.PutUint32(zboot[8:], 0x50)
	binary.LittleEndian.PutUint32(zboot[12:], uint32(len(packed)))
	zboot = append(zboot, packed...)
	for name, b := range map[string][]byte{"plain": imageKernel, "gzip": packed, "zboot": zboot} {
		got, err := unpackKernel("arm64", b)
		if err != nil || !bytes.Equal(got, imageKernel) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := unpackKernel("arm64", []byte("hello")); err == nil {
		t.Error("took no kernel for one")
	}
}

// FuzzUnpackKernel wants an error or a kernel of any bytes, and no panic.
func FuzzUnpackKernel(f *testing.F) {
	f.Add(bzImage(zstdWithSize(f, elfKernel)), false)
	f.Add(bzImage(gzipped(elfKernel)), false)
	f.Add(imageKernel, true)
	f.Fuzz(func(t *testing.T, b []byte, arm bool) {
		arch := "amd64"
		if arm {
			arch = "arm64"
		}
		if k, err := unpackKernel(arch, b); err == nil && len(k) == 0 {
			t.Error("neither a kernel nor an error")
		}
	})
}
