package names

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/miekg/dns"
)

// fakeHost is a host's configuration.
type fakeHost struct {
	mu     sync.Mutex
	resolv Resolv
	hosts  string
}

func (h *fakeHost) Resolv() Resolv { h.mu.Lock(); defer h.mu.Unlock(); return h.resolv }
func (h *fakeHost) Hosts() Hosts {
	h.mu.Lock()
	defer h.mu.Unlock()
	return ParseHosts([]byte(h.hosts))
}

// serve starts a DNS server on loopback, for both transports on one port.
func serve(t *testing.T, handler dns.HandlerFunc) netip.AddrPort {
	t.Helper()
	for {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		pc, err := net.ListenPacket("udp", ln.Addr().String())
		if err != nil { // the port is in use for the other transport; try another one
			ln.Close()
			continue
		}
		for _, s := range []*dns.Server{{Listener: ln, Handler: handler}, {PacketConn: pc, Handler: handler}} {
			ready := make(chan struct{})
			s.NotifyStartedFunc = func() { close(ready) }
			go s.ActivateAndServe()
			<-ready
			t.Cleanup(func() { s.Shutdown() })
		}
		return netip.MustParseAddrPort(ln.Addr().String())
	}
}

// zoneServer has only these records, in the format of a zone file.
func zoneServer(t *testing.T, records ...string) netip.AddrPort {
	t.Helper()
	var rrs []dns.RR
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		rrs = append(rrs, rr)
	}
	return serve(t, func(w dns.ResponseWriter, r *dns.Msg) {
		m := new(dns.Msg).SetRcode(r, dns.RcodeNameError)
		for _, rr := range rrs {
			if h := rr.Header(); strings.EqualFold(h.Name, r.Question[0].Name) {
				m.Rcode = dns.RcodeSuccess
				if h.Rrtype == r.Question[0].Qtype {
					m.Answer = append(m.Answer, rr)
				}
			}
		}
		size := dns.MinMsgSize
		if opt := r.IsEdns0(); opt != nil {
			size = int(opt.UDPSize())
			m.SetEdns0(1232, opt.Do())
		}
		if _, tcp := w.RemoteAddr().(*net.TCPAddr); tcp {
			size = dns.MaxMsgSize
		}
		m.Truncate(size)
		w.WriteMsg(m)
	})
}

func askFor(t *testing.T, r *Resolver, name string, qtype uint16, via Transport) *dns.Msg {
	t.Helper()
	req := new(dns.Msg).SetQuestion(name, qtype)
	return askMsg(t, r, req, via)
}

func askMsg(t *testing.T, r *Resolver, req *dns.Msg, via Transport) *dns.Msg {
	t.Helper()
	b, err := req.Pack()
	if err != nil {
		t.Fatal(err)
	}
	m := new(dns.Msg)
	if err := m.Unpack(r.Answer(t.Context(), b, via)); err != nil {
		t.Fatalf("%v: %v", req.Question, err)
	}
	if m.Id != req.Id || !m.Response || len(m.Question) != 1 || m.Question[0] != req.Question[0] {
		t.Errorf("%v is no answer to %v", m, req)
	}
	return m
}

// short formats an answer in a few words.
func short(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	for _, rr := range m.Answer {
		words = append(words, strings.Join(strings.Fields(rr.String())[3:], " "))
	}
	return strings.Join(words, " | ")
}

func TestAnswer(t *testing.T) {
	long := strings.Repeat(`"`+strings.Repeat("x", 250)+`" `, 8)
	server := zoneServer(t,
		"www.example. A 192.0.2.1", "www.example. AAAA 2001:db8::1", "www.example. TXT \"a b\" \"c\"",
		"_ldap._tcp.example. SRV 1 2 389 ldap.example.", "example. MX 10 mail.example.", "example. NS ns.example.", "example. SOA ns.example. me.example. 1 2 3 4 5",
		"1.2.0.192.in-addr.arpa. PTR www.example.", "alias.example. CNAME www.example.", "odd.example. TYPE65400 \\# 3 010203",
		"long.example. TXT "+long, "intranet.corp.example. A 192.0.2.7", "wiki.sub.corp.example. A 192.0.2.8", "v6only.corp.example. AAAA 2001:db8::8",
		"com. NS a.example.", "single. A 192.0.2.99")
	system := &fakeHost{
		resolv: Resolv{Servers: []netip.AddrPort{server}, Search: []string{"corp.example", "sub.corp.example"}},
		hosts: `
127.0.0.1 localhost myhost # of the host
127.0.1.1 myhost.corp.example
::1 six.example
192.0.2.50 Printer printer.corp.example
192.0.2.51 www.example
2001:db8::50 printer
0.0.0.0 ads.example
nonsense here`,
	}
	r := New(Config{
		Zone: "lsub.internal.", System: system, Loopback: netip.MustParseAddr("10.0.0.254"),
		Local: func(name string) ([]netip.Addr, bool) {
			addr, ok := map[string]netip.Addr{"debian": netip.MustParseAddr("10.0.0.2"), "ubuntu-24.04": netip.MustParseAddr("10.0.0.3")}[name]
			return []netip.Addr{addr}, ok
		},
		Reverse: func(addr netip.Addr) (string, bool) {
			if addr == netip.MustParseAddr("10.0.0.1") {
				return "gateway.lsub.internal.", true
			}
			return "", netip.MustParsePrefix("10.0.0.0/24").Contains(addr)
		},
		Hosts: map[string][]netip.Addr{"db.example": {netip.MustParseAddr("192.0.2.60"), netip.MustParseAddr("2001:db8::60")}},
	})
	for _, tc := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		// the network's own names
		{"debian.lsub.internal.", dns.TypeA, "NOERROR | A 10.0.0.2"},
		{"Debian.LSUB.internal.", dns.TypeA, "NOERROR | A 10.0.0.2"},
		{"ubuntu-24.04.lsub.internal.", dns.TypeA, "NOERROR | A 10.0.0.3"},
		{"debian.lsub.internal.", dns.TypeAAAA, "NOERROR"},
		{"debian.lsub.internal.", dns.TypeMX, "NOERROR"},
		{"nobody.lsub.internal.", dns.TypeA, "NXDOMAIN"},
		{"lsub.internal.", dns.TypeA, "NOERROR"},
		{"1.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR | PTR gateway.lsub.internal."},
		{"9.0.0.10.in-addr.arpa.", dns.TypePTR, "NXDOMAIN"},
		{"localhost.", dns.TypeA, "NOERROR | A 127.0.0.1"},
		{"a.localhost.", dns.TypeAAAA, "NOERROR | AAAA ::1"},

		// hosts files
		{"db.example.", dns.TypeA, "NOERROR | A 192.0.2.60"},
		{"db.example.", dns.TypeAAAA, "NOERROR | AAAA 2001:db8::60"},
		{"printer.", dns.TypeA, "NOERROR | A 192.0.2.50"},
		{"PRINTER.corp.example.", dns.TypeA, "NOERROR | A 192.0.2.50"},
		{"printer.", dns.TypeAAAA, "NOERROR | AAAA 2001:db8::50"},
		{"50.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR | PTR printer."},
		{"0.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.", dns.TypePTR, "NOERROR | PTR printer."},
		{"www.example.", dns.TypeA, "NOERROR | A 192.0.2.51"},
		{"www.example.", dns.TypeAAAA, "NOERROR"}, // hidden, as on the host
		{"ads.example.", dns.TypeA, "NOERROR | A 0.0.0.0"},
		{"myhost.", dns.TypeA, "NOERROR | A 10.0.0.254"}, // the host's loopback is not the guest's
		{"myhost.corp.example.", dns.TypeA, "NOERROR | A 10.0.0.254"},
		{"six.example.", dns.TypeAAAA, "NXDOMAIN"},

		// the host's server
		{"www.example.", dns.TypeTXT, `NOERROR | TXT "a b" "c"`},
		{"_ldap._tcp.example.", dns.TypeSRV, "NOERROR | SRV 1 2 389 ldap.example."},
		{"example.", dns.TypeMX, "NOERROR | MX 10 mail.example."},
		{"example.", dns.TypeNS, "NOERROR | NS ns.example."},
		{"example.", dns.TypeSOA, "NOERROR | SOA ns.example. me.example. 1 2 3 4 5"},
		{"1.2.0.192.in-addr.arpa.", dns.TypePTR, "NOERROR | PTR www.example."},
		{"alias.example.", dns.TypeCNAME, "NOERROR | CNAME www.example."},
		{"odd.example.", 65400, `NOERROR | TYPE65400 \# 3 010203`},
		{"nobody.example.", dns.TypeA, "NXDOMAIN"},

		// names without a dot
		{"intranet.", dns.TypeA, "NOERROR | CNAME intranet.corp.example. | A 192.0.2.7"},
		{"WiKi.", dns.TypeA, "NOERROR | CNAME WiKi.sub.corp.example. | A 192.0.2.8"},
		{"v6only.", dns.TypeA, "NOERROR"},
		{"single.", dns.TypeA, "NOERROR | A 192.0.2.99"},
		{"nobody.", dns.TypeA, "NXDOMAIN"},
		{"com.", dns.TypeNS, "NOERROR | NS a.example."},
	} {
		for _, via := range []Transport{UDP, TCP} {
			if got := short(askFor(t, r, tc.name, tc.qtype, via)); got != tc.want {
				t.Errorf("%s %s over %s: %s, want %s", tc.name, dns.TypeToString[tc.qtype], via, got, tc.want)
			}
		}
	}

	// A long answer is truncated, and comes whole over TCP or with EDNS.
	if m := askFor(t, r, "long.example.", dns.TypeTXT, UDP); !m.Truncated {
		t.Error("a long answer is not truncated")
	}
	if m := askFor(t, r, "long.example.", dns.TypeTXT, TCP); m.Truncated || len(m.Answer) != 1 {
		t.Errorf("over TCP: %v", m)
	}
	req := new(dns.Msg).SetQuestion("long.example.", dns.TypeTXT)
	req.SetEdns0(4096, true)
	if m := askMsg(t, r, req, UDP); m.Truncated || len(m.Answer) != 1 || m.IsEdns0() == nil || !m.IsEdns0().Do() {
		t.Errorf("with EDNS: %v", m)
	}
	req = new(dns.Msg).SetQuestion("debian.lsub.internal.", dns.TypeA)
	req.SetEdns0(1232, false)
	if m := askMsg(t, r, req, UDP); m.IsEdns0() == nil || len(m.Answer) != 1 {
		t.Errorf("our own answer to a query with EDNS: %v", m)
	}

	// A change on the host takes effect at once.
	other := zoneServer(t, "www2.example. A 192.0.2.77")
	system.mu.Lock()
	system.resolv.Servers, system.hosts = []netip.AddrPort{other}, ""
	system.mu.Unlock()
	if got := short(askFor(t, r, "www2.example.", dns.TypeA, UDP)); got != "NOERROR | A 192.0.2.77" {
		t.Errorf("after a change of the server: %s", got)
	}
	if got := short(askFor(t, r, "printer.", dns.TypeA, UDP)); got != "NXDOMAIN" {
		t.Errorf("after a change of the hosts file: %s", got)
	}
}

func TestNoLoopback(t *testing.T) {
	server := zoneServer(t, "myhost. A 192.0.2.1")
	r := New(Config{System: &fakeHost{resolv: Resolv{Servers: []netip.AddrPort{server}}, hosts: "127.0.1.1 myhost"}})
	if got := short(askFor(t, r, "myhost.", dns.TypeA, UDP)); got != "NOERROR | A 192.0.2.1" {
		t.Errorf("where the host's loopback is closed: %s", got)
	}
}

// TestOwnServers replaces the host's servers and domains by the profile's.
func TestOwnServers(t *testing.T) {
	ours, theirs := zoneServer(t, "a.here. A 192.0.2.1"), zoneServer(t, "a.there. A 192.0.2.2")
	r := New(Config{
		Servers: []netip.AddrPort{ours}, Search: []string{"here"},
		System: &fakeHost{resolv: Resolv{Servers: []netip.AddrPort{theirs}, Search: []string{"there"}}},
	})
	if got := short(askFor(t, r, "a.", dns.TypeA, UDP)); got != "NOERROR | CNAME a.here. | A 192.0.2.1" {
		t.Error(got)
	}
	if got := short(askFor(t, r, "a.there.", dns.TypeA, UDP)); got != "NXDOMAIN" {
		t.Error(got)
	}
}

// TestRoutes has a domain with its own server, as with a VPN.
func TestRoutes(t *testing.T) {
	plain := zoneServer(t, "a.corp.example. A 192.0.2.1", "a.example. A 192.0.2.2")
	vpn := zoneServer(t, "a.corp.example. A 192.0.2.3")
	lab := zoneServer(t, "a.lab.corp.example. A 192.0.2.4")
	r := New(Config{System: &fakeHost{resolv: Resolv{Servers: []netip.AddrPort{plain}, Routes: []Route{
		{"corp.example", []netip.AddrPort{vpn}}, {"lab.corp.example", []netip.AddrPort{lab}}, {"empty.example", nil},
	}}}})
	for name, want := range map[string]string{
		"a.example.": "192.0.2.2", "a.Corp.example.": "192.0.2.3", "a.lab.corp.example.": "192.0.2.4",
	} {
		if got := short(askFor(t, r, name, dns.TypeA, UDP)); got != "NOERROR | A "+want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// TestServersInTrouble asks the next server if one cannot help.
func TestServersInTrouble(t *testing.T) {
	good := zoneServer(t, "a.example. A 192.0.2.1")
	failing := serve(t, func(w dns.ResponseWriter, r *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)) })
	refusing := serve(t, func(w dns.ResponseWriter, r *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(r, dns.RcodeRefused)) })
	var mute atomic.Int32
	silent := serve(t, func(dns.ResponseWriter, *dns.Msg) { mute.Add(1) })
	lying := serve(t, func(w dns.ResponseWriter, r *dns.Msg) { // wrong id, wrong question, no answer; then the right answer
		m := new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.A{Hdr: header("a.example.", dns.TypeA), A: net.IPv4(6, 6, 6, 6)}}
		m.Id++
		w.WriteMsg(m)
		m.Id--
		m.Question = []dns.Question{{Name: "b.example.", Qtype: dns.TypeA, Qclass: dns.ClassINET}}
		w.WriteMsg(m)
		w.Write([]byte{1, 2, 3})
		w.WriteMsg(r)
		m = new(dns.Msg).SetReply(r)
		m.Answer = []dns.RR{&dns.A{Hdr: header("a.example.", dns.TypeA), A: net.IPv4(192, 0, 2, 9)}}
		w.WriteMsg(m)
	})
	closed := closedPort(t)
	for _, tc := range []struct {
		name    string
		servers []netip.AddrPort
		via     []Transport
		want    string
	}{
		{"failing", []netip.AddrPort{failing, good}, []Transport{UDP, TCP}, "NOERROR | A 192.0.2.1"},
		{"refusing", []netip.AddrPort{refusing, good}, []Transport{UDP, TCP}, "NOERROR | A 192.0.2.1"},
		{"closed", []netip.AddrPort{closed, good}, []Transport{UDP, TCP}, "NOERROR | A 192.0.2.1"},
		{"silent", []netip.AddrPort{silent, good}, []Transport{UDP, TCP}, "NOERROR | A 192.0.2.1"},
		{"lying", []netip.AddrPort{lying}, []Transport{UDP}, "NOERROR | A 192.0.2.9"},
		{"all failing", []netip.AddrPort{failing, refusing}, []Transport{UDP, TCP}, "SERVFAIL"},
		{"all refusing", []netip.AddrPort{refusing}, []Transport{UDP}, "REFUSED"},
		{"all closed", []netip.AddrPort{closed}, []Transport{UDP, TCP}, "SERVFAIL"},
		{"none", nil, []Transport{UDP}, "SERVFAIL"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := New(Config{System: &fakeHost{resolv: Resolv{Servers: tc.servers}}})
			for _, via := range tc.via {
				req := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
				b, _ := req.Pack()
				m := new(dns.Msg)
				if err := m.Unpack(r.Answer(t.Context(), b, via)); err != nil {
					t.Fatal(err)
				}
				if got := short(m); got != tc.want || m.Id != req.Id {
					t.Errorf("over %s: %s, want %s", via, got, tc.want)
				}
			}
		})
	}

	// A silent server is asked last from then on.
	r := New(Config{System: &fakeHost{resolv: Resolv{Servers: []netip.AddrPort{silent, good}}}})
	askFor(t, r, "a.example.", dns.TypeA, UDP)
	asked := mute.Load()
	for range 10 {
		askFor(t, r, "a.example.", dns.TypeA, UDP)
	}
	if mute.Load() != asked {
		t.Error("a silent server is still asked first")
	}
}

func closedPort(t *testing.T) netip.AddrPort {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	return netip.MustParseAddrPort(pc.LocalAddr().String())
}

// TestCancel stops waiting for a server when the client is gone.
func TestCancel(t *testing.T) {
	heard := make(chan struct{}, 8)
	silent := serve(t, func(dns.ResponseWriter, *dns.Msg) { heard <- struct{}{} })
	r := New(Config{System: &fakeHost{resolv: Resolv{Servers: []netip.AddrPort{silent}}}})
	ctx, cancel := context.WithCancel(t.Context())
	b, _ := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).Pack()
	done := make(chan []byte)
	go func() { done <- r.Answer(ctx, b, UDP) }()
	<-heard
	cancel()
	if m := <-done; len(m) != headerSize || m[3]&0xf != dns.RcodeServerFailure {
		t.Errorf("%x", m)
	}
}

func TestBadQueries(t *testing.T) {
	r := New(Config{System: &fakeHost{}})
	two := new(dns.Msg).SetQuestion("a.", dns.TypeA)
	two.Question = append(two.Question, two.Question[0])
	notify := new(dns.Msg).SetNotify("a.")
	pack := func(m *dns.Msg) []byte { b, _ := m.Pack(); return b }
	for _, tc := range []struct {
		name  string
		query []byte
		want  int // -1: no answer
	}{
		{"nothing", nil, -1},
		{"short", make([]byte, 11), -1},
		{"an answer", pack(new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("a.", dns.TypeA))), -1},
		{"no question", make([]byte, 12), dns.RcodeFormatError},
		{"two questions", pack(two), dns.RcodeFormatError},
		{"a question cut off", pack(new(dns.Msg).SetQuestion("a.example.", dns.TypeA))[:20], dns.RcodeFormatError},
		{"a notification", pack(notify), dns.RcodeNotImplemented},
	} {
		got := -1
		if m := r.Answer(t.Context(), tc.query, UDP); m != nil {
			got = int(m[3] & 0xf)
			if !slices.Equal(m[:2], tc.query[:2]) || m[2]&qrBit == 0 {
				t.Errorf("%s: %x is no answer", tc.name, m)
			}
		}
		if got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
}

// FuzzAnswer sends a query, and a server answers with arbitrary bytes.
func FuzzAnswer(f *testing.F) {
	q, _ := new(dns.Msg).SetQuestion("a.", dns.TypeA).Pack()
	reply := new(dns.Msg).SetReply(new(dns.Msg).SetQuestion("a.x.", dns.TypeA))
	reply.Answer = []dns.RR{&dns.A{Hdr: header("a.x.", dns.TypeA), A: net.IPv4(1, 2, 3, 4)}}
	a, _ := reply.Pack()
	f.Add(q, a[2:], true)
	edns := new(dns.Msg).SetQuestion("a.b.", dns.TypeTXT)
	edns.SetEdns0(512, true)
	b, _ := edns.Pack()
	f.Add(b, []byte{0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0}, false)
	f.Add([]byte{0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 63}, []byte{}, false)

	var answer atomic.Pointer[[]byte]
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, dns.MaxMsgSize)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if b := answer.Load(); b != nil && n >= 2 {
				pc.WriteTo(append(append([]byte(nil), buf[:2]...), *b...), from) // with the right id
			}
			pc.WriteTo(refusal(buf[:n], dns.RcodeNameError), from) // so that it ends in any case
		}
	}()
	r := New(Config{
		Zone: "l.", Local: func(string) ([]netip.Addr, bool) { return nil, true }, Loopback: netip.MustParseAddr("10.0.0.254"),
		System: &fakeHost{hosts: "127.0.0.1 h", resolv: Resolv{Search: []string{"x"}, Servers: []netip.AddrPort{netip.MustParseAddrPort(pc.LocalAddr().String())}}},
	})
	f.Fuzz(func(t *testing.T, query, from []byte, search bool) {
		answer.Store(&from)
		m := r.Answer(t.Context(), query, UDP)
		if m == nil {
			return
		}
		if len(m) < headerSize || [2]byte(m[:2]) != [2]byte(query[:2]) || m[2]&qrBit == 0 {
			t.Fatalf("%x is no answer to %x", m, query)
		}
	})
}
