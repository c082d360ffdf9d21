// Package network sets up the network of the VM, and those of isolated distros.
//
// The VM has a network card, eth0, with an address of the subnet that the host chose. Most
// distros share it. An isolated distro has a network namespace with an eth0 of its own,
// and another address of the subnet:
//
//	err := vm.SetUp()                       // once
//	addr, err := vm.Free("debian-1", taken) // for a distro
//	err = vm.Attach(namespace, addr)        // in the VM's namespace
//	err = vm.SetUpDistro(addr)              // on a thread in the distro's
//	vm.Detach(addr)                         // when it stops
//
// The distro's eth0 is one end of a veth pair, whose other end is in the VM. The VM routes
// between the pairs and its own eth0, and answers ARP requests for all of them (proxy
// ARP). So no address is translated, and the gateway outside sees each distro as a
// machine of the subnet. The package is Linux only.
package network

import (
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
)

// VM is the network of a VM. The zero value stands for a VM without a network.
type VM struct {
	Address netip.Prefix // of eth0, with the length of the subnet
	Gateway netip.Addr
	MTU     int // bytes
}

// errFull says that the subnet is too small.
var errFull = errors.New("the VM's network has no address left")

// Free returns an address for a distro that is not in taken. It is the same at each start,
// unless another distro has taken it. Without a network it is the invalid address.
func (v VM) Free(id string, taken map[netip.Addr]bool) (netip.Addr, error) {
	if !v.Address.IsValid() {
		return netip.Addr{}, nil
	}
	first := toUint(v.Address.Masked().Addr())
	size := uint32(1) << (32 - v.Address.Bits())
	// The first is the subnet itself. The last is for broadcasts, the one before it
	// stands for the host's loopback.
	usable := size - 3
	h := fnv.New32a()
	h.Write([]byte(id))
	for n, start := uint32(0), h.Sum32()%usable; n < usable; n++ {
		addr := fromUint(first + 1 + (start+n)%usable)
		if addr != v.Gateway && addr != v.Address.Addr() && !taken[addr] {
			return addr, nil
		}
	}
	return netip.Addr{}, errFull
}

// linkName is what the VM's end of a distro's pair is called: lsub7 for
// 192.168.127.7.
func (v VM) linkName(addr netip.Addr) string {
	return fmt.Sprintf("lsub%d", toUint(addr)-toUint(v.Address.Masked().Addr()))
}

func toUint(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func fromUint(n uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}
