package vsocksecret

import (
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// newc reads the entries of an archive, as the kernel does (cpio(5)).
func newc(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for at := 0; ; {
		field := func(i int) int {
			n, err := strconv.ParseUint(string(b[at+6+8*i:at+14+8*i]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(n)
		}
		if string(b[at:at+6]) != "070701" {
			t.Fatalf("no entry at %d", at)
		}
		size, nameSize := field(6), field(11)
		name := string(b[at+110 : at+110+nameSize-1])
		data := (at + 110 + nameSize + 3) &^ 3
		at = (data + size + 3) &^ 3
		if name == "TRAILER!!!" {
			return files
		}
		files[name] = b[data : data+size]
	}
}

// TestArchive reads the archive, and takes the secret as the guest does.
func TestArchive(t *testing.T) {
	s := New()
	archive := s.Archive()
	if len(archive)%4 != 0 {
		t.Errorf("the archive has %d bytes", len(archive))
	}
	files := newc(t, archive)
	if len(files) != 1 || !s.Is(files[file]) {
		t.Errorf("the archive has %q", files)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), files[file], 0o400); err != nil {
		t.Fatal(err)
	}
	got, err := Take(dir)
	if err != nil || !got.Is(s) {
		t.Errorf("got %x, %v; want %x", got, err, s)
	}
	if got, err := Take(dir); len(got) != 0 || err != nil {
		t.Errorf("the second time: %x, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(dir, file), s[:7], 0o400); err != nil {
		t.Fatal(err)
	}
	if _, err := Take(dir); err == nil {
		t.Error("a secret that is cut off is taken")
	}
}

// TestListener: a stream that says the secret is served; another one gets nothing.
func TestListener(t *testing.T) {
	s := New()
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	l := s.Listener(plain)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, "hello, ")
				io.Copy(c, c)
			}()
		}
	}()
	talk := func(parts ...[]byte) string {
		c, err := net.Dial("tcp", plain.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, p := range parts {
			c.Write(p)
		}
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		return string(b)
	}
	if got := talk(s, []byte("you")); got != "hello, you" {
		t.Errorf("with the secret: %q", got)
	}
	if got := talk(s[:10], s[10:], []byte("you")); got != "hello, you" {
		t.Errorf("with the secret in two parts: %q", got)
	}
	for name, first := range map[string][]byte{"none": nil, "half of it": s[:16], "another": New(), "zeros": make([]byte, Size)} {
		if got := talk(first, []byte("0123456789012345")); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
	if got := Secret(nil).Listener(plain); got != plain {
		t.Error("the empty secret is expected")
	}
}
