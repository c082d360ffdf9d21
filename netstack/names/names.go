// Package names answers the DNS queries of a VM as its host would: from its own names, the
// host's hosts file, and the host's servers.
//
//	r := names.New(names.Config{Zone: "lsub.internal.", Local: local})
//	answer := r.Answer(ctx, query, names.UDP)
//
// It passes all other queries on unchanged, except for the id, so every type, flag and
// extension works. A change of the host's configuration takes effect at the next query.
//
// A name without a dot gets the host's search domains, as for programs on the host. The
// answer begins with an alias for the name that was found.
//
// The host's configuration is /etc/resolv.conf on Linux. On macOS it is the output of scutil
// --dns, so a VPN's servers for its own domains are asked for these. On Windows it is the
// servers of the network adapters that are up, the fastest first, and those of the name
// resolution policy table (NRPT) for their domains. Names that the host finds in other ways than DNS and the hosts file (mDNS, NIS)
// are not found.
//
// Queries and answers are untrusted bytes; the package is fuzzed. A Resolver is safe for
// concurrent use, and holds nothing open between queries.
package names

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Config has the names that a [Resolver] answers itself. With the zero value, it resolves all
// names as the host does.
type Config struct {
	Zone     string                                 // "lsub.internal.": Local resolves names below it; "" for none
	Local    func(name string) ([]netip.Addr, bool) // gets a name without the zone; false if there is none
	Reverse  func(addr netip.Addr) (string, bool)   // the name of an address; "" with true: it has none
	Hosts    map[string][]netip.Addr                // additional names, without a dot at the end; before the hosts file
	Loopback netip.Addr                             // replaces the host's loopback addresses; invalid: such names are skipped
	Servers  []netip.AddrPort                       // replace the host's servers
	Search   []string                               // replace the host's search domains; nil: the host's
	System   System                                 // nil for this host
	Logger   *slog.Logger                           // nil discards
}

// System is the host's configuration. It is read for each query, so it must be fast.
type System interface {
	Resolv() Resolv
	Hosts() Hosts
}

// Resolv is the host's DNS configuration.
type Resolv struct {
	Servers []netip.AddrPort // in the order to try
	Search  []string         // without a dot at the end
	Routes  []Route          // domains with servers of their own
}

// Route is a domain with servers of its own.
type Route struct {
	Domain  string // in lower case, without a dot at the end
	Servers []netip.AddrPort
}

// Transport is a query's transport.
type Transport string

const (
	UDP Transport = "udp"
	TCP Transport = "tcp"
)

// Resolver answers queries.
type Resolver struct {
	cfg Config
	log *slog.Logger

	mu   sync.Mutex
	slow map[netip.AddrPort]time.Time // servers to ask last, and the end of that
}

// New makes a Resolver.
func New(cfg Config) *Resolver {
	if cfg.System == nil {
		cfg.System = thisHost()
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Resolver{cfg: cfg, log: cfg.Logger, slow: map[netip.AddrPort]time.Time{}}
}

const (
	headerSize = 12 // bytes of a message before its question
	qrBit      = 1 << 7
)

// Answer returns the answer to a query; nil if there is none. ctx bounds the wait for the
// host's servers, which is some 10 s at most.
func (r *Resolver) Answer(ctx context.Context, query []byte, via Transport) []byte {
	if len(query) < headerSize || query[2]&qrBit != 0 {
		return nil // no id to answer to, or not a query
	}
	req := new(dns.Msg)
	if err := req.Unpack(query); err != nil || len(req.Question) != 1 {
		return refusal(query, dns.RcodeFormatError)
	}
	if req.Opcode != dns.OpcodeQuery {
		return refusal(query, dns.RcodeNotImplemented)
	}
	q := req.Question[0]
	if q.Qclass == dns.ClassINET {
		if m := r.own(req); m != nil {
			return pack(m, req, via)
		}
		if isSingle(q) {
			return r.search(ctx, query, req, via)
		}
	}
	return r.forward(ctx, query, q.Name, via)
}

// refusal is an answer with only a code.
func refusal(query []byte, rcode int) []byte {
	m := make([]byte, headerSize)
	copy(m, query[:4])
	m[2] |= qrBit
	m[3] = byte(rcode) | 1<<7 // recursion is available
	return m
}

// pack packs m into a message that fits the client's limit.
func pack(m, req *dns.Msg, via Transport) []byte {
	size := dns.MaxMsgSize
	if via == UDP {
		size = dns.MinMsgSize
	}
	if opt := req.IsEdns0(); opt != nil {
		if via == UDP {
			size = max(dns.MinMsgSize, int(opt.UDPSize()))
		}
		if m.IsEdns0() == nil {
			m.SetEdns0(udpSize, opt.Do())
		}
	}
	m.Compress = true
	m.Truncate(size)
	b, err := m.Pack()
	if err != nil {
		return nil
	}
	return b
}

// udpSize is the largest datagram that we accept, in bytes.
const udpSize = 4096

// forward asks the host's servers.
func (r *Resolver) forward(ctx context.Context, query []byte, name string, via Transport) []byte {
	answer, err := r.exchange(ctx, query, name, via)
	if err != nil {
		r.log.Debug("names: no server of the host's answers", "name", name, "err", err)
		return refusal(query, dns.RcodeServerFailure)
	}
	copy(answer, query[:2])
	return answer
}

// isSingle reports whether a question is for a name without a dot, as people use in their own
// network. Questions about the DNS itself are taken literally.
func isSingle(q dns.Question) bool {
	switch q.Qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeANY:
		return false
	}
	return dns.CountLabel(q.Name) == 1
}

// search asks for a name in each search domain, and last for the name itself. Like programs
// on the host, it stops at the first domain with a matching record.
func (r *Resolver) search(ctx context.Context, query []byte, req *dns.Msg, via Transport) []byte {
	name := req.Question[0].Name
	var last []byte
	for _, domain := range r.Search() {
		full := name + dns.Fqdn(domain)
		if len(full) > 254 {
			continue
		}
		ask := req.Copy()
		ask.Question[0].Name = full
		b, err := ask.Pack()
		if err != nil {
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(r.forward(ctx, b, full, via)); err != nil {
			continue
		}
		if m.Rcode == dns.RcodeSuccess && len(m.Answer) > 0 || m.Truncated {
			m.Id = req.Id
			m.Question = req.Question
			m.Answer = append([]dns.RR{&dns.CNAME{Hdr: header(name, dns.TypeCNAME), Target: full}}, m.Answer...)
			m.AuthenticatedData = false // nobody signed the alias
			return pack(m, req, via)
		}
		if m.Rcode == dns.RcodeSuccess { // the name exists, but has no such record
			m.Id, m.Question, m.Ns = req.Id, req.Question, nil
			last = pack(m, req, via)
		}
	}
	answer := r.forward(ctx, query, name, via)
	if rcode := int(answer[3] & 0xf); rcode != dns.RcodeSuccess && last != nil {
		return last
	}
	return answer
}

// Search returns the domains in which programs look up a name that they find nowhere else.
func (r *Resolver) Search() []string {
	if r.cfg.Search != nil {
		return r.cfg.Search
	}
	return r.cfg.System.Resolv().Search
}

// servers returns the servers for a name, those that answered lately first.
func (r *Resolver) servers(name string) []netip.AddrPort {
	conf := Resolv{Servers: r.cfg.Servers}
	if len(conf.Servers) == 0 {
		conf = r.cfg.System.Resolv()
	}
	servers, longest := conf.Servers, -1
	bare := strings.ToLower(strings.TrimSuffix(name, "."))
	for _, route := range conf.Routes {
		below := bare == route.Domain || strings.HasSuffix(bare, "."+route.Domain)
		if below && len(route.Domain) > longest && len(route.Servers) > 0 {
			servers, longest = route.Servers, len(route.Domain)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var quick, slow []netip.AddrPort
	for _, s := range servers {
		if until, ok := r.slow[s]; ok && time.Now().Before(until) {
			slow = append(slow, s)
		} else {
			quick = append(quick, s)
		}
	}
	return append(quick, slow...)
}

// noteSlow marks a server as slow, so that it is asked last for a while, or clears the mark.
func (r *Resolver) noteSlow(s netip.AddrPort, isSlow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !isSlow {
		delete(r.slow, s)
		return
	}
	if len(r.slow) >= 64 { // from old configurations
		clear(r.slow)
	}
	r.slow[s] = time.Now().Add(slowFor)
}

// sameQuestion reports whether an answer belongs to the query: their ids and questions are
// the same. A server that refuses may omit the question.
func sameQuestion(query, answer []byte) bool {
	if len(answer) < headerSize || answer[2]&qrBit == 0 || [2]byte(answer[:2]) != [2]byte(query[:2]) {
		return false
	}
	if binary.BigEndian.Uint16(answer[4:]) == 0 {
		return answer[3]&0xf != dns.RcodeSuccess
	}
	q := question(query)
	a := question(answer)
	return q != nil && len(a) == len(q) && strings.EqualFold(string(a), string(q))
}

// question returns the bytes of a message's first question: the name (never compressed
// there), type and class.
func question(m []byte) []byte {
	for i := headerSize; i < len(m); {
		switch n := int(m[i]); {
		case n == 0 && i+5 <= len(m):
			return m[headerSize : i+5]
		case n == 0 || n > 63:
			return nil
		default:
			i += 1 + n
		}
	}
	return nil
}
