package names

import (
	"cmp"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/windows"
)

func hostsPath() string {
	return filepath.Join(os.Getenv("SystemRoot"), "System32", "drivers", "etc", "hosts")
}

// askSystem returns the servers of the adapters that are up, in Windows' order of preference
// for the adapters, and those of the name resolution policy table for their domains.
func askSystem() (Resolv, error) {
	const flags = windows.GAA_FLAG_SKIP_UNICAST | windows.GAA_FLAG_SKIP_ANYCAST | windows.GAA_FLAG_SKIP_MULTICAST | windows.GAA_FLAG_INCLUDE_GATEWAYS
	var buf []uint64 // aligned as the list
	size := uint32(16 << 10)
	for {
		buf = make([]uint64, (size+7)/8)
		// The list points into buf, which stays alive while we read the list.
		err := windows.GetAdaptersAddresses(windows.AF_UNSPEC, flags, 0, (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])), &size)
		if err == nil {
			break
		}
		if err != windows.ERROR_BUFFER_OVERFLOW || size > 1<<20 {
			return Resolv{}, err
		}
	}
	var up []*windows.IpAdapterAddresses
	for a := (*windows.IpAdapterAddresses)(unsafe.Pointer(&buf[0])); a != nil; a = a.Next {
		if a.OperStatus == windows.IfOperStatusUp && a.FirstDnsServerAddress != nil {
			up = append(up, a)
		}
	}
	slices.SortStableFunc(up, func(a, b *windows.IpAdapterAddresses) int { return cmp.Compare(a.Ipv4Metric, b.Ipv4Metric) })
	var c Resolv
	for _, a := range up {
		if suffix := plainName(windows.UTF16PtrToString(a.DnsSuffix)); suffix != "" && !slices.Contains(c.Search, suffix) {
			c.Search = append(c.Search, suffix)
		}
		for d := a.FirstDnsServerAddress; d != nil; d = d.Next {
			if ip, ok := netip.AddrFromSlice(d.Address.IP()); ok && !siteLocal.Contains(ip) {
				c.Servers = append(c.Servers, netip.AddrPortFrom(ip.Unmap(), 53))
			}
		}
	}
	return c.withRules(readRules(policyKeys)), nil
}

// siteLocal are the servers that Windows lists if it knows none.
var siteLocal = netip.MustParsePrefix("fec0::/10")
