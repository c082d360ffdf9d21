package profile

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	maxRules = 1024 // of one kind
	maxCount = 4096 // ports of one rule, each of which takes a socket
)

// rule is a forward as it is written: "FROM -> TO", or with keys.
type rule struct {
	from, to string
	proto    string // "" where it is not said
}

// rule reads one in either form.
func (d *decoder) rule(path string, n *yaml.Node) (r rule, ok bool) {
	if target(n).Kind != yaml.MappingNode {
		text, ok := d.text(path, n)
		if !ok {
			return r, false
		}
		from, to, found := strings.Cut(strings.Replace(text, "→", "->", 1), "->")
		if r = (rule{from: strings.TrimSpace(from), to: strings.TrimSpace(to)}); !found || r.from == "" || r.to == "" {
			d.problem(n, "%s: %q is no rule; write \"FROM -> TO\"", path, text)
			return r, false
		}
		return r, true
	}
	before := len(d.problems)
	word := func(s string) (string, error) { return s, nil }
	fields := []field{{"from", set(d, &r.from, word)}, {"to", set(d, &r.to, word)}}
	if path != "ports.sockets" {
		fields = append(fields, field{"proto", set(d, &r.proto, word)})
	}
	d.mapping(path+"[].", n, fields...)
	if len(d.problems) == before && (r.from == "" || r.to == "") {
		d.problem(n, "%s: a rule needs both from and to", path)
	}
	return r, len(d.problems) == before
}

// takeProto takes "/udp" off the end of the rule's from, and returns the rule's protocol.
func (r *rule) takeProto() (Proto, error) {
	if i := strings.LastIndexByte(r.from, '/'); i >= 0 {
		if r.proto != "" {
			return 0, fmt.Errorf("%q says the protocol a second time", r.from)
		}
		r.from, r.proto = r.from[:i], r.from[i+1:]
	}
	if r.proto == "" {
		return TCP, nil
	}
	return parseProto(r.proto)
}

func parseProto(text string) (Proto, error) {
	switch strings.ToLower(text) {
	case "tcp":
		return TCP, nil
	case "udp":
		return UDP, nil
	case "both":
		return Both, nil
	}
	return 0, fmt.Errorf("%q is not one of tcp, udp, both", text)
}

func (d *decoder) forward(path string, n *yaml.Node) {
	r, ok := d.rule(path, n)
	if !ok {
		return
	}
	f, err := parseForward(r)
	if err != nil {
		d.problem(n, "%s: %v", path, err)
		return
	}
	if !f.Listen.Addr().IsValid() {
		f.Listen = netip.AddrPortFrom(d.p.Ports.HostAddress, f.Listen.Port())
	}
	f.At = d.ruleAt(n)
	d.p.Ports.Forwards = append(d.p.Ports.Forwards, f)
}

// parseForward reads "[ADDRESS:]PORTS[/PROTO] -> [DISTRO:]PORTS". The address
// stays invalid where there is none: another key may say it.
func parseForward(r rule) (f Forward, err error) {
	if f.Proto, err = r.takeProto(); err != nil {
		return f, err
	}
	addr, from, err := parseListen(r.from)
	if err != nil {
		return f, err
	}
	distro, ports, named := strings.Cut(r.to, ":")
	if !named {
		distro, ports = "", r.to
	} else if distro, err = parseDistro(distro); err != nil {
		return f, err
	}
	to, err := parsePorts(ports)
	if err != nil {
		return f, err
	}
	f.Listen, f.Distro, f.Port, f.Count = netip.AddrPortFrom(addr, from.First), distro, to.First, from.count()
	return f, sameCount(from, to)
}

func (d *decoder) reverse(path string, n *yaml.Node) {
	r, ok := d.rule(path, n)
	if !ok {
		return
	}
	rev, err := parseReverse(r)
	if err != nil {
		d.problem(n, "%s: %v", path, err)
		return
	}
	rev.At = d.ruleAt(n)
	d.p.Ports.Reverse = append(d.p.Ports.Reverse, rev)
}

// parseReverse reads "[DISTRO:][ADDRESS:]PORTS[/tcp] -> [HOST:]PORTS".
func parseReverse(r rule) (rev Reverse, err error) {
	switch rev.Proto, err = r.takeProto(); {
	case err != nil:
		return rev, err
	case rev.Proto.Has(UDP):
		return rev, errors.New("UDP cannot be forwarded from a distro to the host; programs in it reach the host's at host.lsub.internal")
	}
	listen := r.from
	if before, after, ok := strings.Cut(r.from, ":"); ok && isDistro.MatchString(before) {
		if _, err := netip.ParseAddr(before); err != nil && before != "localhost" {
			rev.Distro, listen = strings.ToLower(before), after
		}
	}
	addr, from, err := parseListen(listen)
	if err != nil {
		return rev, err
	}
	if !addr.IsValid() {
		addr = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	rev.Host = "127.0.0.1"
	ports := r.to
	if i := strings.LastIndexByte(r.to, ':'); i >= 0 {
		ports = r.to[i+1:]
		if rev.Host, err = parseHost(r.to[:i]); err != nil {
			return rev, err
		}
	}
	to, err := parsePorts(ports)
	if err != nil {
		return rev, err
	}
	rev.Listen, rev.Port, rev.Count = netip.AddrPortFrom(addr, from.First), to.First, from.count()
	return rev, sameCount(from, to)
}

func parseHost(text string) (string, error) {
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if a, err := netip.ParseAddr(bare); err == nil {
		return a.String(), nil
	}
	return parseDomain(text)
}

func (d *decoder) socket(path string, n *yaml.Node) {
	r, ok := d.rule(path, n)
	if !ok {
		return
	}
	s, err := parseSocket(r)
	if err != nil {
		d.problem(n, "%s: %v", path, err)
		return
	}
	s.At = d.ruleAt(n)
	d.p.Ports.Sockets = append(d.p.Ports.Sockets, s)
}

// inDistro is a path in a distro: "debian:/run/x.sock".
var inDistro = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,62}):(/[^\x00\n]*)$`)

// parseSocket reads "HOSTPATH -> DISTRO:PATH" or "DISTRO:PATH -> HOSTPATH".
func parseSocket(r rule) (s Socket, err error) {
	from, to := inDistro.FindStringSubmatch(r.from), inDistro.FindStringSubmatch(r.to)
	if from != nil && to != nil { // C:/x is a path of Windows, where the other side is a distro's
		if len(from[1]) == 1 {
			from = nil
		} else if len(to[1]) == 1 {
			to = nil
		}
	}
	guest, host := from, r.to
	if s.ToHost = from != nil; !s.ToHost {
		guest, host = to, r.from
	}
	switch {
	case from != nil && to != nil:
		return s, fmt.Errorf("both %s and %s are in distros; one side has to be the host's", r.from, r.to)
	case guest == nil:
		return s, fmt.Errorf("one side has to be in a distro, as debian:/run/x.sock is")
	case len(guest[2]) > maxSocketPath:
		return s, fmt.Errorf("%.30s… is longer than the %d bytes of a socket's path", guest[2], maxSocketPath)
	}
	s.Distro, s.Guest = strings.ToLower(guest[1]), guest[2]
	s.Host, err = parseHostPath(host)
	return s, err
}

// maxSocketPath is what Linux has for a socket's path, in bytes.
const maxSocketPath = 107

// parseListen reads "[ADDRESS:]PORTS", the address of IPv6 in brackets.
func parseListen(text string) (addr netip.Addr, ports PortRange, err error) {
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		host := text[:i]
		if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
			host = host[1 : len(host)-1]
		} else if strings.Contains(host, ":") {
			return addr, ports, fmt.Errorf("%q: an IPv6 address stands in brackets", text)
		}
		if host == "*" {
			return addr, ports, fmt.Errorf("%q: write 0.0.0.0 or [::] for all addresses", text)
		}
		if addr, err = parseAddr(host); err != nil {
			return addr, ports, err
		}
		text = text[i+1:]
	}
	ports, err = parsePorts(text)
	return addr, ports, err
}

// parsePorts reads "80" or "8000-8010". The protocol stays 0.
func parsePorts(text string) (r PortRange, err error) {
	first, last, isRange := strings.Cut(text, "-")
	if r.First, err = parsePort(first); err != nil {
		return r, err
	}
	if r.Last = r.First; isRange {
		if r.Last, err = parsePort(last); err != nil {
			return r, err
		}
	}
	if r.Last < r.First {
		return r, fmt.Errorf("%q ends before it begins", text)
	}
	return r, nil
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port; there are 1 to 65535", text)
	}
	return uint16(n), nil
}

// parsePortRange reads "80", "8000-8010" or "53/udp"; without a protocol, it is
// for both.
func parsePortRange(text string) (PortRange, error) {
	ports, proto, said := strings.Cut(text, "/")
	r, err := parsePorts(ports)
	r.Proto = Both
	if err == nil && said {
		r.Proto, err = parseProto(proto)
	}
	return r, err
}

func (r PortRange) count() int { return int(r.Last) - int(r.First) + 1 }

func sameCount(from, to PortRange) error {
	switch n := from.count(); {
	case n != to.count():
		return fmt.Errorf("%d ports cannot go to %d", n, to.count())
	case n > maxCount:
		return fmt.Errorf("%d ports are too many for one rule; there may be %d", n, maxCount)
	}
	return nil
}

// overlaps reports rules that listen where another one does.
func (d *decoder) overlaps() {
	p := &d.p.Ports
	var seen []listener
	for _, f := range p.Forwards {
		seen = d.claim(seen, listener{f.Proto, "", HostAddresses(f.Listen.Addr()), f.Listen.Port(), f.Count, f.At})
	}
	seen = nil
	for _, r := range p.Reverse {
		seen = d.claim(seen, listener{r.Proto, r.Distro, []netip.Addr{r.Listen.Addr()}, r.Listen.Port(), r.Count, r.At})
	}
	paths := map[string]string{}
	for _, s := range p.Sockets {
		path := s.Host
		if s.ToHost {
			path = s.Distro + ":" + s.Guest
		}
		if first, taken := paths[path]; taken {
			d.problem(d.rules[s.At], "%s is listened on already, by the rule in line %d", path, d.rules[first].Line)
			continue
		}
		paths[path] = s.At
	}
}

// listener is what a rule listens on.
type listener struct {
	proto  Proto
	distro string // "" on the host
	addrs  []netip.Addr
	port   uint16
	count  int
	at     string
}

// claim adds l to those seen, or reports the one that is in its way.
func (d *decoder) claim(seen []listener, l listener) []listener {
	for _, o := range seen {
		first := max(l.port, o.port)
		apart := int(first) >= min(int(l.port)+l.count, int(o.port)+o.count)
		if o.proto&l.proto == 0 || o.distro != l.distro || apart || !overlap(o.addrs, l.addrs) {
			continue
		}
		d.problem(d.rules[l.at], "port %d is listened on already, by the rule in line %d", first, d.rules[o.at].Line)
		return seen
	}
	return append(seen, l)
}

// overlap tells whether listeners on the addresses get in each other's way.
func overlap(as, bs []netip.Addr) bool {
	for _, a := range as {
		for _, b := range bs {
			if a == b || a.Is4() == b.Is4() && (a.IsUnspecified() || b.IsUnspecified()) {
				return true
			}
		}
	}
	return false
}
