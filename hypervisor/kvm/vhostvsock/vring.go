package vhostvsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	descLen      = 16

	availNoInterrupt = 1 // in avail.flags: the driver wants no interrupts
	usedNoNotify     = 1 // in used.flags: the device wants no kicks

	maxRingSize = 1 << 15
	// maxChain bounds the buffers in one chain. It is what QEMU and Linux
	// bound it with (UIO_MAXIOV); an indirect table may exceed the ring.
	maxChain = 1024
)

// errRing marks what only a broken or hostile driver does. The device stops.
var errRing = errors.New("malformed virtqueue")

// vring is the device's side of a split virtqueue (virtio 1.2, section 2.7).
// Its memory is shared with the guest, which may write any of it at any time:
// each value is loaded once, checked, and used from the copy. It does no
// locking and no I/O.
type vring struct {
	num      uint16
	eventIdx bool // VIRTIO_RING_F_EVENT_IDX was negotiated
	mem      *guestMemory

	desc, avail, used []byte
	availPad          int // bytes in avail before the ring, so that avail is 4-aligned

	availIdx  uint16 // avail.idx as last seen
	lastAvail uint16 // the next entry of avail to take
	usedIdx   uint16 // the next entry of used to write
	published uint16 // used.idx as the driver sees it
	signalled uint16 // used.idx when an interrupt was last considered
	everSent  bool   // signalled is valid
	usedFlags uint16

	fence uint32
	iov   [][]byte // of the last chain; reused
}

// newVring lays a ring of num entries over the front-end's addresses.
func newVring(g *guestMemory, num uint16, desc, avail, used uint64, base uint16, eventIdx bool) (*vring, error) {
	if bits.OnesCount16(num) != 1 || num > maxRingSize {
		return nil, fmt.Errorf("%w: %d entries", errRing, num)
	}
	v := &vring{num: num, eventIdx: eventIdx, mem: g, availIdx: base, lastAvail: base}
	n := uint64(num)
	var err error
	if v.desc, err = g.userSlice(desc, n*descLen, descLen); err != nil {
		return nil, err
	}
	// avail is only 2-aligned. Its 16-bit fields are loaded as halves of the
	// aligned words around them, so the view begins and ends at such words,
	// which lie in the region, because regions are whole pages.
	if avail%2 != 0 {
		return nil, fmt.Errorf("%w: available ring at odd address %#x", errRing, avail)
	}
	pad := avail & 2
	v.availPad = int(pad)
	if v.avail, err = g.userSlice(avail-pad, (pad+6+2*n+3)&^3, 4); err != nil {
		return nil, err
	}
	if v.used, err = g.userSlice(used, 6+8*n, 4); err != nil {
		return nil, err
	}
	// After a pause the used ring goes on where the device left it.
	v.usedIdx = uint16(le32(atomic.LoadUint32(word(v.used, 0))) >> 16)
	v.published, v.signalled = v.usedIdx, v.usedIdx
	return v, nil
}

// word returns the aligned 32-bit word of b that holds the byte at off.
//
// It is sound because b is guest memory: mapped, outside the Go heap, alive as
// long as the ring (its owner unmaps only rings that were stopped under the
// same lock), and begins at a multiple of 4. The index is bounds-checked.
func word(b []byte, off int) *uint32 {
	off &^= 3
	_ = b[off+3]
	return (*uint32)(unsafe.Pointer(&b[off]))
}

// le32 converts between a word as loaded and little-endian order.
func le32(w uint32) uint32 {
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], w)
	return binary.LittleEndian.Uint32(b[:])
}

// load16 loads a 16-bit field of the available ring. Go has no 16-bit atomics;
// a load of the word around it is as good, and acquires.
func (v *vring) load16(off int) uint16 {
	off += v.availPad
	w := le32(atomic.LoadUint32(word(v.avail, off)))
	return uint16(w >> (8 * (off & 2)))
}

// storeUsed publishes used.flags and used.idx, which share a word that only
// the device writes. The store releases the entries written before it.
func (v *vring) storeUsed() {
	atomic.StoreUint32(word(v.used, 0), le32(uint32(v.usedFlags)|uint32(v.published)<<16))
}

// available tells whether the driver has offered a chain that was not taken.
func (v *vring) available() (bool, error) {
	if v.availIdx != v.lastAvail {
		return true, nil
	}
	idx := v.load16(2)
	if idx-v.lastAvail > v.num {
		return false, fmt.Errorf("%w: available index jumped from %d to %d", errRing, v.lastAvail, idx)
	}
	v.availIdx = idx
	return idx != v.lastAvail, nil
}

// peek returns the buffers of the next chain, all of which must be for the
// device to write (or to read). available must have returned true. The result
// is valid until the next call; the memory may change at any time.
func (v *vring) peek(write bool) (head uint16, iov [][]byte, size int, err error) {
	// Ordered after the load of avail.idx, which acquires. One load: head is
	// never read again.
	head = v.load16(4 + 2*int(v.lastAvail&(v.num-1)))
	v.iov = v.iov[:0]
	err = v.walk(v.desc, head, write, false)
	if err != nil {
		return 0, nil, 0, err
	}
	for _, b := range v.iov {
		size += len(b)
	}
	return head, v.iov, size, nil
}

// take counts the chain that peek returned as taken.
func (v *vring) take() { v.lastAvail++ }

// walk appends the buffers of the chain that begins at index i of a table.
func (v *vring) walk(table []byte, i uint16, write, indirect bool) error {
	entries := len(table) / descLen
	for n := 0; ; n++ {
		// As many steps as entries without an end is a loop.
		if int(i) >= entries || n >= entries || len(v.iov) > maxChain {
			return fmt.Errorf("%w: descriptor %d after %d in a table of %d", errRing, i, n, entries)
		}
		// A copy first: the guest may change the table while it is checked.
		var d [descLen]byte
		copy(d[:], table[int(i)*descLen:])
		addr, length := binary.LittleEndian.Uint64(d[0:]), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])

		if flags&descIndirect != 0 {
			if indirect || flags&descNext != 0 {
				return fmt.Errorf("%w: indirect descriptor with flags %#x", errRing, flags)
			}
			return v.walkIndirect(addr, length, write)
		}
		if (flags&descWrite != 0) != write {
			return fmt.Errorf("%w: descriptor flags %#x in the wrong queue", errRing, flags)
		}
		var err error
		if v.iov, err = v.mem.appendSlices(v.iov, addr, length); err != nil {
			return fmt.Errorf("%w: %w", errRing, err)
		}
		if flags&descNext == 0 {
			return nil
		}
		i = next
	}
}

// walkIndirect appends the buffers of an indirect table.
func (v *vring) walkIndirect(addr uint64, length uint32, write bool) error {
	if length == 0 || length%descLen != 0 || length > maxChain*descLen {
		return fmt.Errorf("%w: indirect table of %d bytes", errRing, length)
	}
	table, err := v.mem.slice(addr, length)
	if err == nil && len(table) < int(length) {
		err = errGuestMemory
	}
	if err != nil {
		return fmt.Errorf("%w: indirect table: %w", errRing, err)
	}
	return v.walk(table, 0, write, true)
}

// put writes a used entry. The driver sees it after publish.
func (v *vring) put(head uint16, written int) {
	e := v.used[4+8*int(v.usedIdx&(v.num-1)):]
	binary.LittleEndian.PutUint32(e, uint32(head))
	binary.LittleEndian.PutUint32(e[4:], uint32(written))
	v.usedIdx++
}

// publish shows the driver the entries that were put.
func (v *vring) publish() {
	if v.published != v.usedIdx {
		v.published = v.usedIdx
		v.storeUsed()
	}
}

// needSignal tells whether the driver wants an interrupt for what was
// published since the last call.
func (v *vring) needSignal() bool {
	if v.published == v.signalled {
		return false
	}
	old, first := v.signalled, !v.everSent
	v.signalled, v.everSent = v.published, true
	// The driver's wish must be loaded after used.idx was stored: both are
	// sequentially consistent atomics.
	if !v.eventIdx {
		return v.load16(0)&availNoInterrupt == 0
	}
	event := v.load16(4 + 2*int(v.num))
	return first || v.published-event-1 < v.published-old
}

// enableNotify asks the driver for a kick at the next chain it offers, and
// returns whether there is one already, for which none may come.
func (v *vring) enableNotify() (bool, error) {
	if v.eventIdx {
		// avail_event is the last field of the used ring. It has no word of
		// its own, so it is stored as 16 bits: plain, but an aligned store of
		// 16 bits is a single one on all of Go's architectures, and only the
		// device writes it.
		e := v.used[4+8*int(v.num):]
		binary.LittleEndian.PutUint16(e, v.lastAvail)
		// A sequentially consistent store between it and the load of
		// avail.idx keeps their order, which a driver relies on.
		atomic.StoreUint32(&v.fence, 1)
	} else if v.usedFlags != 0 {
		v.usedFlags = 0
		v.storeUsed()
	}
	return v.available()
}

// disableNotify tells the driver that kicks are a waste for now. With
// eventIdx the stale avail_event says so already.
func (v *vring) disableNotify() {
	if !v.eventIdx && v.usedFlags == 0 {
		v.usedFlags = usedNoNotify
		v.storeUsed()
	}
}

// scatter copies p into iov, which is large enough, and returns what is left
// of iov.
func scatter(iov [][]byte, p []byte) [][]byte {
	for len(p) > 0 {
		n := copy(iov[0], p)
		p = p[n:]
		if iov[0] = iov[0][n:]; len(iov[0]) == 0 {
			iov = iov[1:]
		}
	}
	return iov
}

// gather fills p from iov, which is large enough, and returns what is left of
// iov.
func gather(p []byte, iov [][]byte) [][]byte {
	for len(p) > 0 {
		n := copy(p, iov[0])
		p = p[n:]
		if iov[0] = iov[0][n:]; len(iov[0]) == 0 {
			iov = iov[1:]
		}
	}
	return iov
}
