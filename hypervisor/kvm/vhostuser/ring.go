package vhostuser

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
	// maxChain bounds the buffers in one chain, as in QEMU and Linux (UIO_MAXIOV). An
	// indirect table may exceed the ring.
	maxChain = 1024
)

// ErrRing marks an error that only a broken or hostile driver causes. It stops the device.
var ErrRing = errors.New("malformed virtqueue")

// Ring is the device's side of a split virtqueue (virtio 1.2, section 2.7).
// Its memory is shared with the guest, which may write any of it at any time:
// each value is loaded once, checked, and used from the copy. It does no
// locking and no I/O.
type Ring struct {
	num      uint16
	features uint64 // as negotiated
	eventIdx bool   // VIRTIO_RING_F_EVENT_IDX is negotiated
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
	split int      // the first writable buffer in iov, with ways both
}

// ways says which buffers a chain may have.
type ways int

const (
	readable ways = iota // for the device
	writable
	both // first readable ones, then writable ones
)

// newRing lays a ring of num entries over the front-end's addresses.
func newRing(g *guestMemory, num uint16, desc, avail, used uint64, base uint16, features uint64) (*Ring, error) {
	if bits.OnesCount16(num) != 1 || num > maxRingSize {
		return nil, fmt.Errorf("%w: %d entries", ErrRing, num)
	}
	v := &Ring{
		num: num, features: features, eventIdx: features&FeatureEventIdx != 0, mem: g,
		availIdx: base, lastAvail: base,
	}
	n := uint64(num)
	var err error
	if v.desc, err = g.userSlice(desc, n*descLen, descLen); err != nil {
		return nil, err
	}
	// avail is only 2-aligned. Its 16-bit fields are loaded as halves of the aligned words
	// around them, so the view begins and ends at such words. They lie in the region, because
	// regions are whole pages.
	if avail%2 != 0 {
		return nil, fmt.Errorf("%w: available ring at odd address %#x", ErrRing, avail)
	}
	pad := avail & 2
	v.availPad = int(pad)
	if v.avail, err = g.userSlice(avail-pad, (pad+6+2*n+3)&^3, 4); err != nil {
		return nil, err
	}
	if v.used, err = g.userSlice(used, 6+8*n, 4); err != nil {
		return nil, err
	}
	// After a pause, the used ring continues where the device left it.
	v.usedIdx = uint16(le32(atomic.LoadUint32(word(v.used, 0))) >> 16)
	v.published, v.signalled = v.usedIdx, v.usedIdx
	return v, nil
}

// word returns the aligned 32-bit word of b that holds the byte at off.
//
// It is sound because b is guest memory: it is mapped, outside the Go heap, begins at a
// multiple of 4, and lives as long as the ring (the owner unmaps a ring only after stopping
// it under the same lock). The index is bounds-checked.
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

// load16 loads a 16-bit field of the available ring. Go has no 16-bit atomics. A load of the
// word around it is as good, and has acquire semantics.
func (v *Ring) load16(off int) uint16 {
	off += v.availPad
	w := le32(atomic.LoadUint32(word(v.avail, off)))
	return uint16(w >> (8 * (off & 2)))
}

// storeUsed publishes used.flags and used.idx, which share a word that only
// the device writes. The store releases the entries written before it.
func (v *Ring) storeUsed() {
	atomic.StoreUint32(word(v.used, 0), le32(uint32(v.usedFlags)|uint32(v.published)<<16))
}

// Size returns how many entries the ring has.
func (v *Ring) Size() int { return int(v.num) }

// Features returns the features negotiated with the driver.
func (v *Ring) Features() uint64 { return v.features }

// Available reports whether the driver has offered a chain that is not taken yet.
func (v *Ring) Available() (bool, error) {
	if v.availIdx != v.lastAvail {
		return true, nil
	}
	return v.look()
}

// look loads avail.idx and returns whether the driver has offered more chains since the last
// look.
func (v *Ring) look() (bool, error) {
	idx := v.load16(2)
	seen := v.availIdx - v.lastAvail
	if n := idx - v.lastAvail; n > v.num || n < seen {
		return false, fmt.Errorf("%w: available index jumped from %d to %d", ErrRing, v.availIdx, idx)
	}
	v.availIdx = idx
	return idx-v.lastAvail != seen, nil
}

// Peek returns the buffers of the next chain. All must be writable for the device if write is
// set, and readable otherwise. Available must have returned true. The result is valid until
// the next call; the memory may change at any time.
func (v *Ring) Peek(write bool) (head uint16, iov [][]byte, size int, err error) {
	// Ordered after the load of avail.idx, which has acquire semantics. head is loaded only
	// once.
	head = v.load16(4 + 2*int(v.lastAvail&(v.num-1)))
	v.iov = v.iov[:0]
	way := readable
	if write {
		way = writable
	}
	err = v.walk(v.desc, head, way, false)
	if err != nil {
		return 0, nil, 0, err
	}
	for _, b := range v.iov {
		size += len(b)
	}
	return head, v.iov, size, nil
}

// PeekBoth returns the buffers of the next chain, which has readable ones first and then
// writable ones: in and out. Available must have returned true. The slices are the caller's;
// the memory may change at any time.
func (v *Ring) PeekBoth() (head uint16, in, out [][]byte, err error) {
	head = v.load16(4 + 2*int(v.lastAvail&(v.num-1)))
	in, out, err = v.chain(head)
	return head, in, out, err
}

// chain returns the buffers of the chain that begins with a descriptor.
func (v *Ring) chain(head uint16) (in, out [][]byte, err error) {
	v.iov, v.split = v.iov[:0], -1
	if err := v.walk(v.desc, head, both, false); err != nil {
		return nil, nil, err
	}
	all := append(make([][]byte, 0, len(v.iov)), v.iov...)
	if v.split < 0 {
		return all, nil, nil
	}
	return all[:v.split:v.split], all[v.split:], nil
}

// Take counts the chain that Peek returned as taken.
func (v *Ring) Take() { v.lastAvail++ }

// Untake takes back the last n calls of Take.
func (v *Ring) Untake(n uint16) { v.lastAvail -= n }

// Unput takes back the last n calls of Put, since the queue was flushed.
func (v *Ring) Unput(n uint16) { v.usedIdx -= n }

// walk appends the buffers of the chain that begins at index i of a table.
func (v *Ring) walk(table []byte, i uint16, way ways, indirect bool) error {
	entries := len(table) / descLen
	for n := 0; ; n++ {
		// More steps than entries mean a loop.
		if int(i) >= entries || n >= entries || len(v.iov) > maxChain {
			return fmt.Errorf("%w: descriptor %d after %d in a table of %d", ErrRing, i, n, entries)
		}
		// A copy first: the guest may change the table during the checks.
		var d [descLen]byte
		copy(d[:], table[int(i)*descLen:])
		addr, length := binary.LittleEndian.Uint64(d[0:]), binary.LittleEndian.Uint32(d[8:])
		flags, next := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])

		if flags&descIndirect != 0 {
			if indirect || flags&descNext != 0 {
				return fmt.Errorf("%w: indirect descriptor with flags %#x", ErrRing, flags)
			}
			return v.walkIndirect(addr, length, way)
		}
		write := flags&descWrite != 0
		if way == both && write && v.split < 0 {
			v.split = len(v.iov)
		}
		if way == both && !write && v.split >= 0 || way != both && write != (way == writable) {
			return fmt.Errorf("%w: descriptor flags %#x in the wrong queue", ErrRing, flags)
		}
		var err error
		if v.iov, err = v.mem.appendSlices(v.iov, addr, length); err != nil {
			return fmt.Errorf("%w: %w", ErrRing, err)
		}
		if flags&descNext == 0 {
			return nil
		}
		i = next
	}
}

// walkIndirect appends the buffers of an indirect table.
func (v *Ring) walkIndirect(addr uint64, length uint32, way ways) error {
	if length == 0 || length%descLen != 0 || length > maxChain*descLen {
		return fmt.Errorf("%w: indirect table of %d bytes", ErrRing, length)
	}
	table, err := v.mem.slice(addr, length)
	if err == nil && len(table) < int(length) {
		err = errGuestMemory
	}
	if err != nil {
		return fmt.Errorf("%w: indirect table: %w", ErrRing, err)
	}
	return v.walk(table, 0, way, true)
}

// Put writes a used entry. The driver sees it after publish.
func (v *Ring) Put(head uint16, written int) {
	e := v.used[4+8*int(v.usedIdx&(v.num-1)):]
	binary.LittleEndian.PutUint32(e, uint32(head))
	binary.LittleEndian.PutUint32(e[4:], uint32(written))
	v.usedIdx++
}

// Unpublished returns how many used entries the driver does not see yet.
func (v *Ring) Unpublished() int { return int(v.usedIdx - v.published) }

// publish shows the driver the new used entries.
func (v *Ring) publish() {
	if v.published != v.usedIdx {
		v.published = v.usedIdx
		v.storeUsed()
	}
}

// needSignal reports whether the driver wants an interrupt for the entries published since
// the last call.
func (v *Ring) needSignal() bool {
	if v.published == v.signalled {
		return false
	}
	old, first := v.signalled, !v.everSent
	v.signalled, v.everSent = v.published, true
	// The driver's flag must be loaded after used.idx was stored: both are sequentially
	// consistent atomics.
	if !v.eventIdx {
		return v.load16(0)&availNoInterrupt == 0
	}
	event := v.load16(4 + 2*int(v.num))
	return first || v.published-event-1 < v.published-old
}

// EnableNotify asks the driver for a kick at the next chain. It returns whether there is a
// chain already, because that one may bring no kick.
func (v *Ring) EnableNotify() (bool, error) {
	v.notifyAt(v.lastAvail)
	return v.Available()
}

// EnableNotifyMore is EnableNotify for callers that cannot use the available chains: it
// returns whether there are more than were seen.
func (v *Ring) EnableNotifyMore() (bool, error) {
	v.notifyAt(v.availIdx)
	return v.look()
}

// notifyAt asks the driver for a kick when it fills the entry i of the available ring.
func (v *Ring) notifyAt(i uint16) {
	if v.eventIdx {
		// avail_event is the last field of the used ring. It shares its word, so it is stored
		// as 16 bits. The store is plain, but an aligned 16-bit store is a single one on all
		// of Go's architectures, and only the device writes it.
		e := v.used[4+8*int(v.num):]
		binary.LittleEndian.PutUint16(e, i)
		// This sequentially consistent store orders it before the load of avail.idx, which a
		// driver relies on.
		atomic.StoreUint32(&v.fence, 1)
	} else if v.usedFlags != 0 {
		v.usedFlags = 0
		v.storeUsed()
	}
}

// DisableNotify tells the driver that kicks are not needed for now. With eventIdx, the stale
// avail_event says so already.
func (v *Ring) DisableNotify() {
	if !v.eventIdx && v.usedFlags == 0 {
		v.usedFlags = usedNoNotify
		v.storeUsed()
	}
}

// Scatter copies p into iov, which is large enough, and returns the rest of iov.
func Scatter(iov [][]byte, p []byte) [][]byte {
	for len(p) > 0 {
		n := copy(iov[0], p)
		p = p[n:]
		if iov[0] = iov[0][n:]; len(iov[0]) == 0 {
			iov = iov[1:]
		}
	}
	return iov
}

// Gather fills p from iov, which is large enough, and returns the rest of iov.
func Gather(p []byte, iov [][]byte) [][]byte {
	for len(p) > 0 {
		n := copy(p, iov[0])
		p = p[n:]
		if iov[0] = iov[0][n:]; len(iov[0]) == 0 {
			iov = iov[1:]
		}
	}
	return iov
}
