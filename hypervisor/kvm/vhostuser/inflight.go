package vhostuser

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// maxInflight is the largest ring whose chains can be tracked.
const maxInflight = 1024

const (
	inflightHeader = 64
	inflightQueue  = inflightHeader + 4*maxInflight
)

// InflightLen returns the size of [Config].Inflight for a device with so many queues.
func InflightLen(queues int) int { return queues * inflightQueue }

// inflight is the part of one queue in memory that outlives a back-end. It is written in an
// order that makes sense wherever the process is killed. A nil inflight tracks nothing.
//
// The 32-bit words: whether the ring is up; its next available entry; the chain that is being
// given back (with bit 16 set) and the used index that publishes it; then, for each chain by
// its first descriptor, the available entry by which it was taken (with bit 16 set), or 0.
type inflight struct{ words []atomic.Uint32 }

const (
	wordUp = iota
	wordAvail
	wordPutting
	wordUsed
	wordChains = inflightHeader / 4
	marked     = 1 << 16
)

// newInflight lays the words of a queue over b.
//
// It is sound because b is a mapping of whole pages (checked by its length and the offset's
// alignment below), outside the Go heap, and lives as long as the device.
func newInflight(b []byte, queue int) *inflight {
	b = b[queue*inflightQueue:][:inflightQueue]
	if uintptr(unsafe.Pointer(&b[0]))%4 != 0 {
		panic("vhostuser: misaligned memory of chains in flight")
	}
	return &inflight{unsafe.Slice((*atomic.Uint32)(unsafe.Pointer(&b[0])), len(b)/4)}
}

// begin returns the position from which a ring goes on: base for a new one, else where the
// earlier back-end was.
func (f *inflight) begin(num, base uint16) (uint16, error) {
	if num > maxInflight {
		return 0, fmt.Errorf("%w: %d entries, more than %d", ErrRing, num, maxInflight)
	}
	if f.words[wordUp].Load() == 1 {
		return uint16(f.words[wordAvail].Load()), nil
	}
	for i := range f.words {
		f.words[i].Store(0)
	}
	f.words[wordAvail].Store(uint32(base))
	f.words[wordUp].Store(1)
	return base, nil
}

// end says that the front-end has taken the ring back; all chains were given back.
func (f *inflight) end() {
	if f != nil {
		f.words[wordUp].Store(0)
	}
}

// take notes a chain that is taken by the available entry at.
func (f *inflight) take(head, at uint16) {
	// A head of a ring of num entries is below num, as the walk has checked.
	f.words[wordChains+int(head)].Store(uint32(at) | marked)
	f.words[wordAvail].Store(uint32(at + 1))
}

// putting notes that a chain will be given back when the used index is used.
func (f *inflight) putting(head, used uint16) {
	f.words[wordUsed].Store(uint32(used))
	f.words[wordPutting].Store(uint32(head) | marked)
}

// put notes that it is given back.
func (f *inflight) put(head uint16) {
	f.words[wordChains+int(head)].Store(0)
	f.words[wordPutting].Store(0)
}

// orphans returns the chains that were taken and not given back.
func (f *inflight) orphans(r *Ring) (heads []uint16) {
	if p := f.words[wordPutting].Load(); p&marked != 0 {
		head := uint16(p)
		if int(head) < maxInflight && r.usedIdx == uint16(f.words[wordUsed].Load()) {
			f.words[wordChains+int(head)].Store(0) // it was published
		}
		f.words[wordPutting].Store(0)
	}
	for head := range int(r.num) {
		at := f.words[wordChains+head].Load()
		// One that was noted but not counted is still the next to take.
		if at&marked != 0 && uint16(at) != r.lastAvail {
			heads = append(heads, uint16(head))
		}
	}
	return heads
}
