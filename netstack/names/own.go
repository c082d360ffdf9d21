package names

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// own answers queries that need no server; otherwise it returns nil.
func (r *Resolver) own(req *dns.Msg) *dns.Msg {
	q := req.Question[0]
	name := strings.ToLower(q.Name)
	if addr, ok := reverseName(name); ok {
		return r.ownReverse(req, addr)
	}
	addrs, found := []netip.Addr(nil), false
	switch {
	case r.cfg.Zone != "" && (name == r.cfg.Zone || strings.HasSuffix(name, "."+r.cfg.Zone)):
		if name == r.cfg.Zone {
			found = true
		} else if addrs, found = r.cfg.Local(strings.TrimSuffix(name, "."+r.cfg.Zone)); !found {
			return negative(req, dns.RcodeNameError)
		}
	case name == "localhost." || strings.HasSuffix(name, ".localhost."): // RFC 6761
		addrs, found = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}, true
	default:
		if q.Qtype != dns.TypeA && q.Qtype != dns.TypeAAAA {
			return nil // a hosts file holds and hides only these types
		}
		addrs, found = r.hostsFile(strings.TrimSuffix(name, "."))
	}
	if !found {
		return nil
	}
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	for _, a := range addrs {
		switch {
		case q.Qtype == dns.TypeA && a.Is4():
			m.Answer = append(m.Answer, &dns.A{Hdr: header(q.Name, dns.TypeA), A: a.AsSlice()})
		case q.Qtype == dns.TypeAAAA && a.Is6():
			m.Answer = append(m.Answer, &dns.AAAA{Hdr: header(q.Name, dns.TypeAAAA), AAAA: a.AsSlice()})
		}
	}
	return m
}

// hostsFile looks a name up in the profile's hosts and the host's. It replaces the host's
// loopback by the VM's address for it.
func (r *Resolver) hostsFile(name string) ([]netip.Addr, bool) {
	if addrs, ok := r.cfg.Hosts[name]; ok {
		return addrs, true
	}
	all := r.cfg.System.Hosts().Addrs[name]
	var addrs []netip.Addr
	for _, a := range all {
		switch {
		case !a.IsLoopback():
			addrs = append(addrs, a)
		case a.Is4() && r.cfg.Loopback.IsValid():
			addrs = append(addrs, r.cfg.Loopback)
		}
	}
	return addrs, len(addrs) > 0
}

func (r *Resolver) ownReverse(req *dns.Msg, addr netip.Addr) *dns.Msg {
	if req.Question[0].Qtype != dns.TypePTR {
		return nil
	}
	name, ours := "", false
	if r.cfg.Reverse != nil {
		name, ours = r.cfg.Reverse(addr)
	}
	if !ours && !addr.IsLoopback() {
		name, ours = r.cfg.System.Hosts().Names[addr]
	}
	switch {
	case !ours:
		return nil
	case name == "":
		return negative(req, dns.RcodeNameError)
	}
	m := new(dns.Msg).SetReply(req)
	m.RecursionAvailable = true
	m.Answer = []dns.RR{&dns.PTR{Hdr: header(req.Question[0].Name, dns.TypePTR), Ptr: dns.Fqdn(name)}}
	return m
}

func negative(req *dns.Msg, rcode int) *dns.Msg {
	m := new(dns.Msg).SetRcode(req, rcode)
	m.RecursionAvailable = true
	return m
}

// header is the header of a record with TTL 0: it may change at any time.
func header(name string, rrtype uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET}
}

// reverseName parses the name of a reverse lookup.
func reverseName(name string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(name, ".in-addr.arpa."); ok {
		parts := strings.Split(rest, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		var b [4]byte
		for i, p := range parts {
			n, err := strconv.ParseUint(p, 10, 8)
			if err != nil {
				return netip.Addr{}, false
			}
			b[3-i] = byte(n)
		}
		return netip.AddrFrom4(b), true
	}
	rest, ok := strings.CutSuffix(name, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		n, err := strconv.ParseUint(rest[2*i:2*i+1], 16, 8)
		if err != nil || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		b[15-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(b), true
}
