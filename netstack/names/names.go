// Package names answers the DNS queries of a VM as its host would: from names
// of its own, the host's hosts file, and the servers that the host asks.
//
//	r := names.New(names.Config{Zone: "lsub.internal.", Local: local})
//	answer := r.Answer(ctx, query, names.UDP)
//
// What it does not answer itself it passes on, byte for byte but for the id, so
// every type, flag and extension comes through. A change of the host's
// configuration counts from the next query on.
//
// A name without a dot gets the host's search domains, as programs on the host
// see it; the answer begins with an alias for the name that was found.
//
// What "the host's configuration" is: on Linux /etc/resolv.conf, on macOS what
// scutil --dns shows, so that the servers which a VPN has for its own domains
// are asked for these, and on Windows the servers of the network adapters that
// are up, the fastest first; its policy table (NRPT) is not read. Names that the
// host finds without DNS and the hosts file (mDNS, NIS) are not found.
//
// Queries and answers are foreign bytes; the package is fuzzed. A Resolver is
// safe for concurrent use, and holds nothing open between queries.
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

// Config has the names that a [Resolver] answers itself. With the zero value, it asks
// the host for all names.
type Config struct {
	Zone     string                                 // "lsub.internal.": names below it are Local's; "" for none
	Local    func(name string) ([]netip.Addr, bool) // of a name without the zone; false where there is none
	Reverse  func(addr netip.Addr) (string, bool)   // the name of an address; "" with true: it has none
	Hosts    map[string][]netip.Addr                // further names, without a dot at the end; before the hosts file
	Loopback netip.Addr                             // what the host's loopback is to the VM; invalid: such names are skipped
	Servers  []netip.AddrPort                       // to ask in place of the host's
	Search   []string                               // search domains in place of the host's; nil: the host's
	System   System                                 // nil for this host
	Logger   *slog.Logger                           // nil discards
}

// System is the host's configuration. It is asked for each query, so it has to
// be quick.
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
	Domain  string // in small letters, without a dot at the end
	Servers []netip.AddrPort
}

// Transport is how a query came.
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
	slow map[netip.AddrPort]time.Time // servers to ask last, and until when
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

// Answer returns the answer to a query, nil where it deserves none. ctx bounds
// the time that the host's servers may take; they have some 10 s at most.
func (r *Resolver) Answer(ctx context.Context, query []byte, via Transport) []byte {
	if len(query) < headerSize || query[2]&qrBit != 0 {
		return nil // not even an id to answer to, or an answer
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

// refusal is an answer that says nothing but the code.
func refusal(query []byte, rcode int) []byte {
	m := make([]byte, headerSize)
	copy(m, query[:4])
	m[2] |= qrBit
	m[3] = byte(rcode) | 1<<7 // and that recursion is available
	return m
}

// pack makes a message of m that fits what the asker takes.
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

// udpSize is how large a datagram we take, in bytes.
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

// isSingle tells whether a question is for a name without a dot, as people
// write those of their own network. Questions about the DNS itself are meant
// as they are.
func isSingle(q dns.Question) bool {
	switch q.Qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY, dns.TypeRRSIG, dns.TypeNSEC, dns.TypeANY:
		return false
	}
	return dns.CountLabel(q.Name) == 1
}

// search asks for a name in each search domain, and last as it is. As programs
// on the host do, it goes on until one has what is asked for.
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
		if m.Rcode == dns.RcodeSuccess { // the name is there, without what is asked for
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

// Search returns the domains in which programs look up a name that they find
// nowhere else.
func (r *Resolver) Search() []string {
	if r.cfg.Search != nil {
		return r.cfg.Search
	}
	return r.cfg.System.Resolv().Search
}

// servers returns whom to ask for a name, those that answered lately first.
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

// noteSlow has a server asked last for a while.
func (r *Resolver) noteSlow(s netip.AddrPort, isSlow bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !isSlow {
		delete(r.slow, s)
		return
	}
	if len(r.slow) >= 64 { // of configurations that are long gone
		clear(r.slow)
	}
	r.slow[s] = time.Now().Add(slowFor)
}

// sameQuestion tells whether an answer is one to the query, whose ids are the
// same. A server that refuses may leave the question out.
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

// question returns the bytes of a message's first question: the name, which
// no message compresses there, type and class.
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
