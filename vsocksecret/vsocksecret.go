// Package vsocksecret proves to a guest that a vsock stream comes from its own host. The
// kernel's vsock (AF_VSOCK over /dev/vhost-vsock) has no permissions: every user of the host
// may connect to the guest's ports. So a driver that uses it gives each VM a secret with its
// initrd, which no process of a distro can see, and sends it first on each stream:
//
//	secret := vsocksecret.New()
//	initrd = append(initrd, secret.Archive()...) // on the host, at the VM's start
//	conn.Write(secret)                           // on the host, first on each stream
//
//	secret, err := vsocksecret.Take("/")         // in the guest, once, by PID 1
//	l = secret.Listener(l)                       // in the guest
//
// A secret of no bytes stands for a driver whose streams nobody else can open. It is sent and
// expected nowhere.
package vsocksecret

import (
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Secret is what host and guest know: [Size] bytes, or none.
type Secret []byte

// Size is the length of a secret in bytes.
const Size = 32

// file is where the secret stands in the guest's initial RAM file system.
const file = "lsub-vsock-secret"

// New makes a secret.
func New() Secret {
	s := make(Secret, Size)
	rand.Read(s) // it never fails
	return s
}

// Archive returns a cpio archive that brings the secret to the guest. It is appended to an
// initrd whose length is a multiple of 4 bytes; the kernel unpacks one archive after the other.
func (s Secret) Archive() []byte {
	var b strings.Builder
	entry := func(name string, mode, links int, data []byte) {
		pad := func() { b.WriteString(strings.Repeat("\x00", -b.Len()&3)) }
		// newc: magic, then 13 numbers of 8 hexadecimal digits (cpio(5)).
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
			0, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name)+1, 0, name)
		pad()
		b.Write(data)
		pad()
	}
	entry(file, 0o100400, 1, s)
	entry("TRAILER!!!", 0, 1, nil)
	return []byte(b.String())
}

// Take reads the secret below the root of the initial RAM file system, and removes it there. A
// guest whose host has given it none has the empty one.
func Take(root string) (Secret, error) {
	name := filepath.Join(root, file)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(b) != Size {
		return nil, fmt.Errorf("the secret for vsock has %d bytes, not %d", len(b), Size)
	}
	return b, os.Remove(name)
}

// Is tells whether b is the secret, in the same time whatever b is.
func (s Secret) Is(b []byte) bool { return subtle.ConstantTimeCompare(s, b) == 1 }

// errWrong is what a stream without the secret fails with.
var errWrong = errors.New("the stream does not begin with the VM's secret")

// patience bounds how long a stream may take to say the secret.
const patience = 10 * time.Second

// Listener returns a listener whose streams must say the secret first. That is looked at when
// a stream is read for the first time, so Accept does not wait for it; nothing may be written
// to it before that.
func (s Secret) Listener(l net.Listener) net.Listener {
	if len(s) == 0 {
		return l
	}
	return listener{l, s}
}

type listener struct {
	net.Listener
	secret Secret
}

func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, secret: l.secret}, nil
}

// conn is a stream that says the secret first.
type conn struct {
	net.Conn
	secret Secret
	once   sync.Once
	err    error
}

func (c *conn) Read(b []byte) (int, error) {
	c.once.Do(c.check)
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(b)
}

// check reads the secret. A stream without it is closed.
func (c *conn) check() {
	said := make([]byte, len(c.secret))
	late := time.AfterFunc(patience, func() { c.Conn.Close() })
	defer late.Stop()
	for n := 0; n < len(said); {
		m, err := c.Conn.Read(said[n:])
		if n += m; err != nil && n < len(said) {
			c.err = err
			return
		}
	}
	if !c.secret.Is(said) {
		c.err = errWrong
		c.Conn.Close()
	}
}

// Write refuses to answer a stream that has not said the secret.
func (c *conn) Write(b []byte) (int, error) {
	c.once.Do(c.check)
	if c.err != nil {
		return 0, c.err
	}
	return c.Conn.Write(b)
}

// SyscallConn gives access to the socket, where the stream has one.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

// CloseWrite ends what is written, where the stream can.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return errors.ErrUnsupported
}
