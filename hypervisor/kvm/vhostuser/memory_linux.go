package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mapRegion maps the memory of fd. It does not close fd: the mapping stays without it.
func mapRegion(r memRegion, fd int) (region, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return region{}, fmt.Errorf("memory region: %w", err)
	}
	// Access beyond the file's end would be a SIGBUS.
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < int64(r.MmapOffset+r.Size) {
		return region{}, fmt.Errorf("memory region %+v is larger than its file of %d bytes", r, st.Size)
	}
	mem, err := unix.Mmap(fd, int64(r.MmapOffset), int(r.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return region{}, fmt.Errorf("map %d bytes of guest memory: %w", r.Size, err)
	}
	return region{memRegion: r, mem: mem}, nil
}

// unmap releases the mappings of regions of g that are not in keep.
func (g *guestMemory) unmap(keep *guestMemory) {
	kept := make(map[*byte]bool)
	if keep != nil {
		for _, r := range keep.regions {
			kept[&r.mem[0]] = true
		}
	}
	for _, r := range g.regions {
		if !kept[&r.mem[0]] {
			_ = unix.Munmap(r.mem) // fails only for an address without a mapping
		}
	}
}

// mapMore adds the region of fd.
func (g *guestMemory) mapMore(r memRegion, fd int) error {
	if err := checkRegion(r, g.regions); err != nil {
		return err
	}
	m, err := mapRegion(r, fd)
	if err == nil {
		g.regions = append(g.regions, m)
	}
	return err
}
