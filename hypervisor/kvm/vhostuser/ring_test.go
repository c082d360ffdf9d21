package vhostuser

import (
	"encoding/binary"
	"errors"
	"testing"
	"unsafe"
)

// plainMemory is guest memory without a mapping: two adjacent regions, and one apart. Its
// arrays are aligned as mappings are.
func plainMemory(fill []byte) *guestMemory {
	const page = 4096
	raw := make([]uint64, 3*page/8)
	all := unsafe.Slice((*byte)(unsafe.Pointer(&raw[0])), 3*page) // a view of raw, which it keeps alive
	copy(all, fill)
	g := &guestMemory{}
	for i, addr := range []uint64{0, page, 1 << 32} {
		r := memRegion{GuestAddr: addr, Size: page, UserAddr: uint64(i) * page, MmapOffset: 0}
		g.regions = append(g.regions, region{r, all[i*page : (i+1)*page : (i+1)*page]})
	}
	return g
}

// FuzzRing walks arbitrary rings in a device's two ways: a table of 16 entries at 0, the
// available ring at 0x102, the used ring at 0x200, and bytes at 2^32 that may serve as an
// indirect table.
func FuzzRing(f *testing.F) {
	desc := func(addr uint64, n uint32, flags, next uint16) []byte {
		le := binary.LittleEndian
		b := le.AppendUint32(le.AppendUint64(nil, addr), n)
		return le.AppendUint16(le.AppendUint16(b, flags), next)
	}
	one := []byte{0, 0, 1, 0, 0, 0}
	f.Add(desc(0xff0, 0x100, 0, 0), one, []byte{}, true, false, uint16(0)) // continues in the next region
	f.Add(desc(0x400, 0x100, descNext, 0), one, []byte{}, false, false, uint16(0))
	f.Add(append(desc(0x400, 20, descWrite|descNext, 1), desc(0x800, 300, descWrite, 0)...), one, []byte{}, true, true, uint16(0))
	f.Add(desc(1<<32, 32, descIndirect, 0), one, append(desc(0x400, 44, descNext, 1), desc(0x1ffe, 2, 0, 0)...), true, false, uint16(0))
	f.Add(desc(1<<32, 32, descIndirect, 0), one, append(desc(0x400, 44, descNext|descWrite, 1), desc(0x1ff0, 64, descWrite, 0)...), true, true, uint16(0))
	f.Add(desc(1<<32+4088, 16, descIndirect, 0), one, []byte{}, false, true, uint16(65535))
	f.Fuzz(func(t *testing.T, table, avail, indirect []byte, eventIdx, write bool, base uint16) {
		features := uint64(0)
		if eventIdx {
			features = FeatureEventIdx
		}
		g := plainMemory(nil)
		copy(g.regions[0].mem[:0x100], table)
		copy(g.regions[0].mem[0x102:0x200], avail)
		copy(g.regions[2].mem, indirect)
		v, err := newRing(g, 16, 0, 0x102, 0x200, base, features)
		if err != nil {
			t.Fatal(err)
		}
		for range 32 {
			ok, err := v.EnableNotify()
			if err != nil {
				mustBeRing(t, err)
				return
			}
			if !ok {
				break
			}
			v.DisableNotify()
			if _, in, out, err := v.PeekBoth(); err != nil {
				mustBeRing(t, err)
			} else if len(in)+len(out) > maxChain+len(g.regions) {
				t.Fatal(len(in), len(out))
			}
			head, iov, size, err := v.Peek(write)
			if err != nil {
				mustBeRing(t, err)
				return
			}
			if len(iov) > maxChain+len(g.regions) {
				t.Fatal(len(iov))
			}
			var raw [44]byte // a header
			if write && size >= len(raw) && size < 1<<16 {
				Scatter(iov, raw[:])
			}
			if !write && size >= len(raw) {
				Gather(raw[:], iov)
			}
			v.Take()
			v.Put(head, min(size, len(raw)))
			v.publish()
			v.needSignal()
		}
	})
}

func mustBeRing(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrRing) {
		t.Fatal(err)
	}
}

func TestRingAddresses(t *testing.T) {
	g := plainMemory(nil)
	for name, a := range map[string][4]uint64{ // entries, desc, avail, used
		"not a power of two":  {15, 0, 0x102, 0x200},
		"no entries":          {0, 0, 0x102, 0x200},
		"misaligned table":    {16, 8, 0x102, 0x200},
		"odd available ring":  {16, 0, 0x101, 0x200},
		"misaligned used":     {16, 0, 0x102, 0x202},
		"beyond the region":   {16, 0xff0, 0x102, 0x200},
		"used at its end":     {16, 0, 0x102, 0xffc},
		"outside all regions": {16, 1 << 40, 0x102, 0x200},
	} {
		if _, err := newRing(g, uint16(a[0]), a[1], a[2], a[3], 0, FeatureEventIdx); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	// The available ring ends exactly where the region ends.
	if _, err := newRing(g, 16, 0, 4096-38, 0x200, 0, FeatureEventIdx); err != nil {
		t.Error(err)
	}
}

func TestPutDescTable(t *testing.T) {
	// An indirect table may not cross regions, nor contain another.
	g := plainMemory(nil)
	v, err := newRing(g, 16, 0, 0x102, 0x200, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	mem := g.regions[0].mem
	le.PutUint64(mem, 0xff0)
	le.PutUint32(mem[8:], 64)
	le.PutUint16(mem[12:], descIndirect)
	if _, _, _, err := v.Peek(false); !errors.Is(err, ErrRing) {
		t.Error(err)
	}
	le.PutUint64(mem, 0x800)
	le.PutUint16(mem[0x80c:], descIndirect)
	le.PutUint32(mem[0x808:], 16)
	if _, _, _, err := v.Peek(false); !errors.Is(err, ErrRing) {
		t.Error(err)
	}
}
