package vhosttest

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Requests of the vhost-user protocol.
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	getQueueNum         = 17
	setVringEnable      = 18
	getConfig           = 24
	resetDevice         = 34
)

const (
	flagVersion   = 1
	flagNeedReply = 1 << 3
	headerLen     = 12
)

const (
	// MemorySize is the size of a VM's memory, and Split where its second half
	// begins, which the guest knows under another address.
	MemorySize, Split = 16 << 20, 8 << 20

	high = 4 << 30 // the second half's guest-physical address
	user = 0x7f00_0000_0000
)

// Address returns the guest-physical address of an offset in [VM.Mem].
func Address(off int) uint64 {
	if off >= Split {
		return high + uint64(off-Split)
	}
	return uint64(off)
}

// VM plays QEMU. A test uses it from one goroutine at a time; the rings' memory from
// as many as it likes.
type VM struct {
	T    testing.TB
	Conn *net.UnixConn // the front-end's end
	Mem  []byte
	// EventIdx is whether the driver has taken VIRTIO_RING_F_EVENT_IDX.
	EventIdx bool
	// MayFail allows Serve to return an error.
	MayFail bool

	closed bool
	memfd  int
	acks   bool // REPLY_ACK is negotiated
	fds    []int
	served chan error
}

// New returns a VM whose device serve serves.
func New(t testing.TB, serve func(*net.UnixConn) error) *VM {
	t.Helper()
	v := &VM{T: t, served: make(chan error, 1)}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	v.check(err)
	v.Conn = v.unixConn(fds[0])
	back := v.unixConn(fds[1])
	go func() { v.served <- serve(back) }()
	v.memfd, err = unix.MemfdCreate("fake", unix.MFD_CLOEXEC)
	v.check(err)
	v.fds = append(v.fds, v.memfd)
	v.check(unix.Ftruncate(v.memfd, MemorySize))
	v.Mem, err = unix.Mmap(v.memfd, 0, MemorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	v.check(err)
	return v
}

func (v *VM) check(err error) {
	v.T.Helper()
	if err != nil {
		v.T.Fatal(err)
	}
}

func (v *VM) unixConn(fd int) *net.UnixConn {
	f := os.NewFile(uintptr(fd), "socket")
	defer f.Close()
	c, err := net.FileConn(f)
	v.check(err)
	return c.(*net.UnixConn)
}

// Eventfd returns an eventfd that lasts as long as the VM.
func (v *VM) Eventfd() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	v.check(err)
	v.fds = append(v.fds, fd)
	return fd
}

var one = binary.NativeEndian.AppendUint64(nil, 1)

// Signal adds 1 to an eventfd.
func Signal(fd int) { _, _ = unix.Write(fd, one) }

// Drain takes an eventfd back to 0.
func Drain(fd int) {
	var b [8]byte
	_, _ = unix.Read(fd, b[:])
}

// Disconnect hangs up.
func (v *VM) Disconnect() { _ = v.Conn.Close() }

// Close hangs up, waits for the end of Serve, and releases the memory. It is
// idempotent.
func (v *VM) Close() {
	if v.closed {
		return
	}
	v.closed = true
	v.Disconnect()
	select {
	case err := <-v.served:
		if err != nil && !v.MayFail {
			v.T.Errorf("Serve: %v", err)
		}
	case <-time.After(10 * time.Second):
		v.T.Error("Serve did not return")
	}
	for _, fd := range v.fds {
		_ = unix.Close(fd)
	}
	_ = unix.Munmap(v.Mem)
}

// request sends a message, and returns its answer where it has one.
func (v *VM) request(req uint32, reply bool, payload []byte, fds ...int) []byte {
	v.T.Helper()
	le := binary.LittleEndian
	flags := uint32(flagVersion)
	if !reply {
		flags |= flagNeedReply
	}
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, req), flags), uint32(len(payload)))
	_, _, err := v.Conn.WriteMsgUnix(append(b, payload...), unix.UnixRights(fds...), nil)
	v.check(err)
	if reply {
		return v.answer(req)
	}
	if v.acks {
		if le.Uint64(v.answer(req)) != 0 {
			v.T.Fatalf("request %d was refused", req)
		}
	}
	return nil
}

func (v *VM) answer(req uint32) []byte {
	v.T.Helper()
	var h [headerLen]byte
	_, err := io.ReadFull(v.Conn, h[:])
	v.check(err)
	if got := binary.LittleEndian.Uint32(h[:]); got != req {
		v.T.Fatalf("answer to %d, want %d", got, req)
	}
	p := make([]byte, binary.LittleEndian.Uint32(h[8:]))
	_, err = io.ReadFull(v.Conn, p)
	v.check(err)
	return p
}

func u64(v uint64) []byte          { return binary.LittleEndian.AppendUint64(nil, v) }
func state(i uint32, n int) []byte { return u64(uint64(i) | uint64(n)<<32) }

// Offer is what a device says of itself.
type Offer struct{ Features, Protocol, MaxQueues uint64 }

// Handshake does what QEMU does before the guest's driver is up, and returns what the
// device has offered.
func (v *VM) Handshake() Offer {
	v.T.Helper()
	le := binary.LittleEndian
	o := Offer{
		Features: le.Uint64(v.request(getFeatures, true, nil)),
		Protocol: le.Uint64(v.request(getProtocolFeatures, true, nil)),
	}
	v.request(setProtocolFeatures, false, u64(o.Protocol))
	v.answer(setProtocolFeatures) // acknowledged as soon as it is negotiated
	v.acks = true
	o.MaxQueues = le.Uint64(v.request(getQueueNum, true, nil))
	v.request(setOwner, false, nil)
	return o
}

// Config returns the first n bytes of the configuration space.
func (v *VM) Config(n int) []byte {
	v.T.Helper()
	return v.request(getConfig, true, append(append(state(0, n), 0, 0, 0, 0), make([]byte, n)...))[headerLen:]
}

// SetFeatures tells what the driver has taken.
func (v *VM) SetFeatures(f uint64) {
	v.T.Helper()
	v.EventIdx = f&(1<<29) != 0
	v.request(setFeatures, false, u64(f))
}

// SetMemory gives the device the memory, in two regions.
func (v *VM) SetMemory() {
	v.T.Helper()
	table := u64(2)
	for _, r := range [][4]uint64{{0, Split, user, 0}, {high, MemorySize - Split, user + high, Split}} {
		for _, n := range r {
			table = append(table, u64(n)...)
		}
	}
	v.request(setMemTable, false, table, v.memfd, v.memfd)
}

// Setup gives the device a ring, which goes on at base.
func (v *VM) Setup(i uint32, r *Ring, base int) {
	v.T.Helper()
	v.request(setVringNum, false, state(i, r.Num))
	v.request(setVringBase, false, state(i, base))
	var a []byte
	for _, n := range []uint64{uint64(i), user + uint64(r.Desc), user + uint64(r.Used), user + uint64(r.Avail), 0} {
		a = append(a, u64(n)...)
	}
	v.request(setVringAddr, false, a)
	v.request(setVringCall, false, u64(uint64(i)), r.Call)
	v.request(setVringKick, false, u64(uint64(i)), r.Kick)
	v.Enable(i, true)
}

// Enable enables or disables a ring.
func (v *VM) Enable(i uint32, on bool) {
	v.T.Helper()
	n := 0
	if on {
		n = 1
	}
	v.request(setVringEnable, false, state(i, n))
}

// Stop takes a ring away from the device, and returns where it would go on.
func (v *VM) Stop(i uint32) (base int) {
	v.T.Helper()
	return int(binary.LittleEndian.Uint32(v.request(getVringBase, true, state(i, 0))[4:]))
}

// ResetDevice resets the device.
func (v *VM) ResetDevice() {
	v.T.Helper()
	v.request(resetDevice, false, nil)
}
