package vhosttest

import (
	"encoding/binary"
	"sync/atomic"
	"unsafe"
)

// Flags of a descriptor.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
	// DescLen is the size of a descriptor.
	DescLen = 16
)

const usedNoNotify = 1

// Ring is a driver's side of a split virtqueue. It does no locking.
type Ring struct {
	VM  *VM
	Num int
	// Desc, Avail and Used are offsets in the memory.
	Desc, Avail, Used int
	// AvailIdx counts the chains that were offered, and Seen those that came back.
	AvailIdx, Seen uint16
	Kick, Call     int
	fence          atomic.Uint32
}

// RingSpace is how much memory a ring of 1024 entries takes at most.
const RingSpace = 0x30000

// NewRing lays a ring of num entries, up to 1024, at an offset of the memory. Its
// available ring is as badly aligned as virtio allows.
func (v *VM) NewRing(at, num int) *Ring {
	return &Ring{
		VM: v, Num: num, Desc: at, Avail: at + 0x10002, Used: at + 0x20000,
		Kick: v.Eventfd(), Call: v.Eventfd(),
	}
}

// Clear takes the ring back to where it began.
func (r *Ring) Clear() {
	clear(r.VM.Mem[r.Avail : r.Avail+6+2*r.Num])
	clear(r.VM.Mem[r.Used : r.Used+6+8*r.Num])
	r.AvailIdx, r.Seen = 0, 0
}

// word returns the aligned word of the memory at an offset, which is outside the Go
// heap and lives as long as the VM.
func (r *Ring) word(off int) *uint32 {
	off &^= 3
	_ = r.VM.Mem[off+3]
	return (*uint32)(unsafe.Pointer(&r.VM.Mem[off]))
}

// le32 converts between a word as loaded and little-endian order.
func le32(w uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], w)
	return binary.LittleEndian.Uint32(b[:])
}

func (r *Ring) load16(off int) uint16 {
	return uint16(le32(atomic.LoadUint32(r.word(off))) >> (8 * (off & 2)))
}

// PutDesc writes descriptor i of the table at an offset.
func (r *Ring) PutDesc(table, i int, addr uint64, n int, flags, next uint16) {
	b, le := r.VM.Mem[table+i*DescLen:], binary.LittleEndian
	le.PutUint64(b, addr)
	le.PutUint32(b[8:], uint32(n))
	le.PutUint16(b[12:], flags)
	le.PutUint16(b[14:], next)
}

// Offer makes the chain that begins with a descriptor available, and kicks when the
// device wants it. It returns whether it has kicked.
func (r *Ring) Offer(head uint16) (kicked bool) {
	binary.LittleEndian.PutUint16(r.VM.Mem[r.Avail+4+2*(int(r.AvailIdx)%r.Num):], head)
	r.AvailIdx++
	// avail is 2 modulo 4: its idx shares a word with the first entry, which
	// only the driver writes either.
	first := uint32(binary.LittleEndian.Uint16(r.VM.Mem[r.Avail+4:]))
	atomic.StoreUint32(r.word(r.Avail+2), le32(uint32(r.AvailIdx)|first<<16))
	if r.VM.EventIdx {
		kicked = r.AvailIdx-r.load16(r.Used+4+8*r.Num)-1 < 1
	} else {
		kicked = r.load16(r.Used)&usedNoNotify == 0
	}
	if kicked {
		Signal(r.Kick)
	}
	return kicked
}

// Reap returns the next used entry. Where there is none it asks for an interrupt.
func (r *Ring) Reap() (id uint16, n int, ok bool) {
	if r.load16(r.Used+2) == r.Seen {
		if !r.VM.EventIdx {
			return 0, 0, false
		}
		// used_event: an interrupt for the next one, then look again.
		binary.LittleEndian.PutUint16(r.VM.Mem[r.Avail+4+2*r.Num:], r.Seen)
		r.fence.Store(1)
		if r.load16(r.Used+2) == r.Seen {
			return 0, 0, false
		}
	}
	e := r.VM.Mem[r.Used+4+8*(int(r.Seen)%r.Num):]
	r.Seen++
	return uint16(binary.LittleEndian.Uint32(e)), int(binary.LittleEndian.Uint32(e[4:])), true
}
