package unxz

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os/exec"
	"testing"

	"github.com/ulikunitz/xz"
)

const limit = 16 << 20

func pack(t testing.TB, data []byte, c xz.WriterConfig) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := c.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(data []byte) ([]byte, error) {
	return io.ReadAll(NewReader(bufio.NewReader(bytes.NewReader(data)), limit))
}

// sample has parts that compress well and parts that do not.
func sample() []byte {
	random := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{}).Read(random)
	return bytes.Join([][]byte{random, bytes.Repeat([]byte("again and "), 50_000)}, nil)
}

func TestReader(t *testing.T) {
	data := sample()
	for name, c := range map[string]xz.WriterConfig{
		"usual": {}, "no check": {NoCheckSum: true}, "crc32": {CheckSum: xz.CRC32}, "sha256": {CheckSum: xz.SHA256},
		"blocks": {BlockSize: 70_000}, "small dictionary": {DictCap: 1 << 16},
	} {
		packed := pack(t, data, c)
		if got, err := unpack(packed); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: got %d bytes, %v", name, len(got), err)
		}
		two := bytes.Join([][]byte{packed, make([]byte, 8), packed, make([]byte, 4)}, nil)
		if got, err := unpack(two); err != nil || len(got) != 2*len(data) {
			t.Errorf("%s, twice: got %d bytes, %v", name, len(got), err)
		}
	}
	if got, err := unpack(pack(t, nil, xz.WriterConfig{})); err != nil || len(got) != 0 {
		t.Errorf("nothing: got %d bytes, %v", len(got), err)
	}
}

// TestProgram reads files that the program xz writes with options that package xz lacks.
func TestProgram(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Skip("xz is not installed")
	}
	data := sample()
	for _, args := range [][]string{{"-9e"}, {"-T2", "--block-size=65536"}, {"-0", "--check=sha256"}, {"--check=none"}} {
		cmd := exec.Command("xz", append([]string{"-c"}, args...)...)
		cmd.Stdin = bytes.NewReader(data)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		dict := int64(limit)
		if args[0] == "-9e" {
			if _, err := unpack(packed); !errors.Is(err, ErrMemory) {
				t.Errorf("%v: got %v", args, err)
			}
			dict = 64 << 20
		}
		if got, err := io.ReadAll(NewReader(bufio.NewReader(bytes.NewReader(packed)), dict)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%v: got %d bytes, %v", args, len(got), err)
		}
	}
	cmd := exec.Command("xz", "-c", "--x86", "--lzma2")
	cmd.Stdin = bytes.NewReader(data)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack(packed); !errors.Is(err, ErrFilter) {
		t.Errorf("got %v", err)
	}
}

// TestBomb has a file that declares a dictionary of 4 GiB.
func TestBomb(t *testing.T) {
	packed := pack(t, []byte("small"), xz.WriterConfig{})
	h := packed[12 : 12+(int(packed[12])+1)*4]
	at := bytes.Index(h, []byte{lzma2Filter, 1})
	h[at+2] = 40
	binary.LittleEndian.PutUint32(h[len(h)-4:], crc32.ChecksumIEEE(h[:len(h)-4]))
	if _, err := unpack(packed); !errors.Is(err, ErrMemory) {
		t.Errorf("got %v", err)
	}
}

// TestDamage flips each bit of a file, and truncates it everywhere: the reader reports an
// error, or the data is intact.
func TestDamage(t *testing.T) {
	data := []byte("some text, some text, and some more text")
	packed := pack(t, data, xz.WriterConfig{})
	for i := range packed {
		if got, err := unpack(packed[:i]); err == nil && i > 0 {
			t.Errorf("cut at %d: got %q", i, got)
		}
		for bit := range 8 {
			bad := bytes.Clone(packed)
			bad[i] ^= 1 << bit
			if got, err := unpack(bad); err == nil && !bytes.Equal(got, data) {
				t.Errorf("byte %d, bit %d: got %q", i, bit, got)
			}
		}
	}
}

// FuzzReader reads arbitrary bytes as a file, and compares with package xz.
func FuzzReader(f *testing.F) {
	f.Add(pack(f, []byte("some text"), xz.WriterConfig{}))
	f.Add(pack(f, bytes.Repeat([]byte("x"), 1000), xz.WriterConfig{CheckSum: xz.SHA256, BlockSize: 100}))
	f.Add(append(pack(f, nil, xz.WriterConfig{}), 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := io.ReadAll(io.LimitReader(NewReader(bufio.NewReader(bytes.NewReader(data)), 1<<20), 1<<20))
		if err != nil || len(got) == 1<<20 || len(data) == 0 {
			return
		}
		r, err := xz.NewReader(bytes.NewReader(data))
		if err != nil {
			t.Fatalf("package xz: %v", err)
		}
		if want, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, package xz %d, %v", len(got), len(want), err)
		}
	})
}
