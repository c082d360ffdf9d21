package share

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// client plays the guest's kernel.
type client struct {
	t      testing.TB
	s      *Server
	dir    string
	unique uint64
	uid    uint32
	pid    uint32 // of the thread; 1 if 0
}

func newClient(t testing.TB, cfg Config) *client {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &client{t: t, s: s, dir: cfg.Dir, uid: cfg.GuestUID}
}

// fields appends integers (of their size), strings (with a zero byte) and bytes.
func fields(values ...any) []byte {
	var b []byte
	le := binary.LittleEndian
	for _, v := range values {
		switch v := v.(type) {
		case uint32:
			b = le.AppendUint32(b, v)
		case uint64:
			b = le.AppendUint64(b, v)
		case string:
			b = append(append(b, v...), 0)
		case []byte:
			b = append(b, v...)
		default:
			panic(v)
		}
	}
	return b
}

// message is a request with its header.
func (c *client) message(op uint32, node uint64, payload []byte) []byte {
	c.unique++
	h := fields(uint32(inHeaderLen+len(payload)), op, c.unique, node, c.uid, c.uid, max(c.pid, 1), uint32(0))
	return append(h, payload...)
}

// call sends a request in two pieces, and returns the answer's payload.
func (c *client) call(op uint32, node uint64, values ...any) ([]byte, unix.Errno) {
	c.t.Helper()
	m := c.message(op, node, fields(values...))
	out := [][]byte{make([]byte, outHeaderLen), make([]byte, 80<<10)}
	n := c.s.Handle(c.t.Context(), [][]byte{m[:20], m[20:]}, out)
	if hasNoAnswer(op) {
		if n != 0 {
			c.t.Fatalf("request %d has an answer", op)
		}
		return nil, 0
	}
	le := binary.LittleEndian
	if n < outHeaderLen || int(le.Uint32(out[0])) != n || le.Uint64(out[0][8:]) != c.unique {
		c.t.Fatalf("request %d: answer of %d bytes with header %x", op, n, out[0])
	}
	errno := unix.Errno(-int32(le.Uint32(out[0][4:])))
	if errno != 0 && n != outHeaderLen {
		c.t.Fatalf("request %d: an error with %d bytes", op, n)
	}
	return out[1][:n-outHeaderLen], errno
}

// must is call for a request that succeeds.
func (c *client) must(op uint32, node uint64, values ...any) []byte {
	c.t.Helper()
	p, errno := c.call(op, node, values...)
	if errno != 0 {
		c.t.Fatalf("request %d on %d: %v", op, node, errno)
	}
	return p
}

// fails checks a request's error.
func (c *client) fails(want unix.Errno, op uint32, node uint64, values ...any) {
	c.t.Helper()
	if _, errno := c.call(op, node, values...); errno != want {
		c.t.Errorf("request %d on %d: %v (%d), want %v", op, node, errno, errno, want)
	}
}

func nodeOf(entry []byte) uint64 { return binary.LittleEndian.Uint64(entry) }
func modeOf(entry []byte) uint32 { return binary.LittleEndian.Uint32(entry[40+60:]) }
func sizeOf(entry []byte) uint64 { return binary.LittleEndian.Uint64(entry[40+8:]) }
func ownersOf(entry []byte) [2]uint32 {
	le := binary.LittleEndian
	return [2]uint32{le.Uint32(entry[40+68:]), le.Uint32(entry[40+72:])}
}

// lookup returns the node of a name; 0 if there is none.
func (c *client) lookup(parent uint64, name string) uint64 {
	c.t.Helper()
	return nodeOf(c.must(opLookup, parent, name))
}

// open opens a node.
func (c *client) open(node uint64, flags int) uint64 {
	c.t.Helper()
	return nodeOf(c.must(opOpen, node, uint32(flags), uint32(0)))
}

// create makes a file, which is open to read and write.
func (c *client) create(parent uint64, name string, mode uint32) (node, fh uint64) {
	c.t.Helper()
	p := c.must(opCreate, parent, uint32(unix.O_RDWR|unix.O_EXCL), mode, uint32(0), uint32(0), name)
	return nodeOf(p), nodeOf(p[entryLen:])
}

func (c *client) write(node, fh uint64, offset uint64, data string) {
	c.t.Helper()
	p := c.must(opWrite, node, fh, offset, uint32(len(data)), uint32(0), uint64(0), uint32(0), uint32(0), []byte(data))
	if n := binary.LittleEndian.Uint32(p); int(n) != len(data) {
		c.t.Fatalf("wrote %d of %d bytes", n, len(data))
	}
}

func (c *client) read(node, fh uint64) string {
	c.t.Helper()
	return string(c.must(opRead, node, fh, uint64(0), uint32(4096), uint32(0), uint64(0), uint32(0), uint32(0)))
}

func (c *client) close(node, fh uint64) {
	c.t.Helper()
	c.must(opRelease, node, fh, uint32(0), uint32(0), uint64(0))
}

func (c *client) host(name string) string { return filepath.Join(c.dir, name) }

func (c *client) hostWrite(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(c.host(name), []byte(text), 0o644); err != nil {
		c.t.Fatal(err)
	}
}

// list returns the names in a directory, read with answers of so many bytes.
func (c *client) list(node uint64, size int, plus bool) (names []string) {
	c.t.Helper()
	fh := nodeOf(c.must(opOpendir, node, uint32(0), uint32(0)))
	op := uint32(opReaddir)
	if plus {
		op = opReaddirplus
	}
	le := binary.LittleEndian
	for offset := uint64(0); ; {
		p := c.must(op, node, fh, offset, uint32(size), uint32(0), uint64(0), uint32(0), uint32(0))
		if len(p) == 0 {
			break
		}
		for len(p) > 0 {
			if plus {
				p = p[entryLen:]
			}
			offset = le.Uint64(p[8:])
			n := int(le.Uint32(p[16:]))
			names = append(names, string(p[direntLen:direntLen+n]))
			p = p[direntLen+(n+7)&^7:]
		}
	}
	c.must(opReleasedir, node, fh, uint32(0), uint32(0), uint64(0))
	return names
}

// openFDs counts this process's descriptors.
func openFDs(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func init() { unix.Umask(0) } // as the server's process does
