package vhostuser

import (
	"errors"
	"fmt"
	"math"
)

var errGuestMemory = errors.New("address outside guest memory")

// region is one piece of guest memory with its mapping.
type region struct {
	memRegion
	mem []byte // exactly Size bytes, starting on a page
}

// guestMemory translates the guest's and the front-end's addresses. It is replaced as a whole
// and never changed, so the ring locks are enough to use it.
type guestMemory struct {
	regions []region
}

// slice returns n bytes of memory from the guest-physical address, or fewer at the end of the
// region: a buffer may continue in the next one.
func (g *guestMemory) slice(addr uint64, n uint32) ([]byte, error) {
	for i := range g.regions {
		r := &g.regions[i]
		// The subtraction wraps to a huge number for an addr below the region.
		if off := addr - r.GuestAddr; off < r.Size {
			return r.mem[off:min(off+uint64(n), r.Size):r.Size], nil
		}
	}
	return nil, fmt.Errorf("%w: %#x", errGuestMemory, addr)
}

// appendSlices appends the n bytes of memory from the guest-physical address to iov, one
// piece for each region.
func (g *guestMemory) appendSlices(iov [][]byte, addr uint64, n uint32) ([][]byte, error) {
	for n > 0 {
		b, err := g.slice(addr, n)
		if err != nil {
			return iov, err
		}
		iov = append(iov, b)
		n -= uint32(len(b))
		addr += uint64(len(b))
	}
	return iov, nil
}

// userSlice returns n bytes of memory from the front-end's address, which must
// be a multiple of align (at most a page).
func (g *guestMemory) userSlice(addr uint64, n, align uint64) ([]byte, error) {
	for i := range g.regions {
		r := &g.regions[i]
		off := addr - r.UserAddr
		if off >= r.Size {
			continue
		}
		if n > r.Size-off || off%align != 0 {
			return nil, fmt.Errorf("%w: ring of %d bytes at %#x", errGuestMemory, n, addr)
		}
		return r.mem[off : off+n : off+n], nil
	}
	return nil, fmt.Errorf("%w: ring at %#x", errGuestMemory, addr)
}

// checkRegion returns why r cannot be used beside the other regions, or nil.
func checkRegion(r memRegion, others []region) error {
	const page = 4096
	switch {
	case r.Size == 0 || (r.Size|r.MmapOffset|r.GuestAddr|r.UserAddr)%page != 0,
		r.GuestAddr+r.Size < r.GuestAddr, r.UserAddr+r.Size < r.UserAddr,
		r.MmapOffset+r.Size < r.MmapOffset, r.MmapOffset+r.Size > math.MaxInt:
		return fmt.Errorf("memory region %+v is malformed", r)
	}
	for i := range others {
		o := &others[i]
		if r.GuestAddr < o.GuestAddr+o.Size && o.GuestAddr < r.GuestAddr+r.Size {
			return fmt.Errorf("memory region %+v overlaps %+v", r, o.memRegion)
		}
	}
	return nil
}
