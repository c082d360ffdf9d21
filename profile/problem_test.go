package profile

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestProblems(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		// no YAML, or none that a profile is
		{"a: b: c", "1:5: mapping values are not allowed in this context"},
		{"cpus: 1\nnetwork: [x\n", "3:1: while parsing a flow sequence: did not find expected ',' or ']'"},
		{"\tcpus: 1", "1:1: while scanning for the next token: found character that cannot start any token"},
		{"cpus: 1\nmemory: \"\xff\"", "2:10: the file is not UTF-8"},
		{"é: \"\xff\"", "1:5: the file is not UTF-8"},
		{"cpus: *x", "1:7: unknown anchor 'x' referenced"},
		{"cpus: 1\n---\ncpus: 2\n", "2:1: a profile is one document"},
		{"cpus: 1\n---\n[", "4:1: while parsing a flow node: did not find expected node content"},
		{"just words", "1:1: a profile has to be keys with values, not one value"},
		{"- a\n- b", "1:1: a profile has to be keys with values, not a list"},
		{"network: on", "1:10: network has to be keys with values, not one value"},
		{"cpus: [1]", "1:7: cpus has to be one value, not a list"},
		{"cpus: {a: 1}", "1:7: cpus has to be one value, not keys with values"},
		{"? [a]\n: b", "1:3: a key has to be a word, not a list"},
		{"cpus: 1\ncpus: 2", `2:1: key "cpus" is on line 1 already`},
		{"<<: {cpus: 1}", "1:1: a profile has no merge keys; write the values out"},
		{"network: {dns: [1.1.1.1, ~]}", "1:26: network.dns has an empty item"},

		// keys
		{"prots: {}", `1:1: unknown key "prots"; did you mean "ports"?`},
		{"network:\n  hostAccess: no\n", `2:3: unknown key "hostAccess"; did you mean "host_access"?`},
		{"network:\n  host-acces: no\n", `2:3: unknown key "host-acces"; did you mean "host_access"?`},
		{"idle: {zzzzzz: 1}", `1:8: unknown key "zzzzzz"; there are distro, vm`},
		{"distros:\n  debian:\n    netwrok: isolated\n", `3:5: unknown key "netwrok"; did you mean "network"?`},

		// values
		{"memory: lots", `1:9: memory: "lots" is no size; write 512M or 4G`},
		{"memory: 4096", "1:9: memory: 4096 bytes are no memory for a VM; write 512M or 4G"},
		{"cpus: 0", `1:7: cpus: "0" is no number of CPUs`},
		{"cpus: 1.5", `1:7: cpus: "1.5" is no number of CPUs`},
		{"idle: {vm: 300}", `1:12: idle.vm: "300" has no unit; write 300s, 300m or never`},
		{"idle: {vm: soon}", `1:12: idle.vm: "soon" is no time; write 90s, 5m, 1h30m or never`},
		{"idle: {vm: -5m}", `1:12: idle.vm: "-5m" is too short; 1s is the least`},
		{"mounts: [src]", `1:10: mounts: "src" is no path from the root, from ~/ or from a $VARIABLE`},
		{"mounts: [~/a, ~/a]", "1:15: mounts: ~/a is in the list already"},
		{"mounts:\n- {writable: true}", `2:3: mounts: a mount needs a path; the home folder is "~/"`},
		{"mounts:\n- path: ~", `2:3: mounts: a mount needs a path; the home folder is "~/"`},
		{"mounts: [~, ~/]", "1:13: mounts: ~/ is in the list already"},
		{"mounts:\n- ", "2:2: mounts has an empty item"},
		{"mounts:\n- {path: ~/a, carrier: 9p}", `2:24: mounts[].carrier: "9p" is not one of virtiofs, stream`},
		{"catalogues: http://a.example/", `1:13: catalogues: "http://a.example/" is no https address`},
		{"catalogues:\n- https://u:p@a.example/", "2:3: catalogues: the address of a catalogue has no user, '?' and '#'"},
		{"catalogues:\n- {kind: wsl}", "2:3: catalogues: a catalogue needs a url"},
		{"catalogues:\n- {url: 'https://a.example', kind: zip}", `2:36: catalogues[].kind: "zip" is not one of wsl, simplestreams`},
		{"catalogues: [https://a.example, https://a.example]", "1:33: catalogues: https://a.example is in the list already"},
		{"network: {subnet: 10.0.0.7/24}", "1:19: network.subnet: 10.0.0.7/24 is an address in a network; the network is 10.0.0.0/24"},
		{"network: {subnet: 8.8.8.0/24}", "1:19: network.subnet: 8.8.8.0/24 is not a private network; use one of 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"},
		{"network: {subnet: 10.0.0.0/30}", "1:19: network.subnet: 10.0.0.0/30 has to be between /16 and /28"},
		{"network: {subnet: 'fd00::/64'}", `1:19: network.subnet: "fd00::/64" is no IPv4 network; write 192.168.127.0/24`},
		{"network: {host_access: maybe}", `1:24: network.host_access: "maybe" is neither true nor false`},
		{"network: {proxy: on}", `1:18: network.proxy: "on" is not one of auto, off`},
		{"network: {proxy: {http: 'ftp://x'}}", `1:25: network.proxy.http: "ftp://x" is no proxy; write http://HOST:PORT`},
		{"network: {ca_bundle: ca.pem}", `1:22: network.ca_bundle: "ca.pem" is no path from the root, from ~/ or from a $VARIABLE`},
		{"network: {dns: dns.example}", `1:16: network.dns: "dns.example" is no address of a DNS server; write 192.0.2.53 or 192.0.2.53:5353`},
		{"network: {search: 'a..b'}", `1:19: network.search: "a..b" is no domain name`},
		{"network: {hosts: {'a b': 192.0.2.1}}", `1:19: network.hosts: "a b" is no domain name`},
		{"network: {hosts: {db: }}", "1:19: network.hosts: db has no address"},
		{"network: {hosts: {db: db2}}", `1:23: network.hosts.db: "db2" is no IP address`},

		// rules
		{"ports: {ignore: [0]}", `1:18: ports.ignore: "0" is no port; there are 1 to 65535`},
		{"ports: {ignore: [65536]}", `1:18: ports.ignore: "65536" is no port; there are 1 to 65535`},
		{"ports: {ignore: [9-8]}", `1:18: ports.ignore: "9-8" ends before it begins`},
		{"ports: {ignore: [80/sctp]}", `1:18: ports.ignore: "sctp" is not one of tcp, udp, both`},
		{"ports: {forwards: [8080]}", `1:20: ports.forwards: "8080" is no rule; write "FROM -> TO"`},
		{"ports: {forwards: ['8080:80']}", `1:20: ports.forwards: "8080:80" is no rule; write "FROM -> TO"`},
		{"ports: {forwards: [-> 80]}", `1:20: ports.forwards: "-> 80" is no rule; write "FROM -> TO"`},
		{"ports: {forwards: [{from: 80}]}", "1:20: ports.forwards: a rule needs both from and to"},
		{"ports: {forwards: [{from: 80, to: 80, prot: tcp}]}", `1:39: unknown key "prot"; did you mean "proto"?`},
		{"ports: {forwards: [{from: 80/udp, to: 80, proto: tcp}]}", `1:20: ports.forwards: "80/udp" says the protocol a second time`},
		{"ports: {forwards: ['::1:80 -> 80']}", `1:20: ports.forwards: "::1:80": an IPv6 address stands in brackets`},
		{"ports: {forwards: ['*:80 -> 80']}", `1:20: ports.forwards: "*:80": write 0.0.0.0 or [::] for all addresses`},
		{"ports: {forwards: ['eth0:80 -> 80']}", `1:20: ports.forwards: "eth0" is no IP address`},
		{"ports: {forwards: [80 -> '-x:80']}", `1:20: ports.forwards: "'-x" cannot be the name of a distro`},
		{"ports: {forwards: [80-82 -> 80-81]}", "1:20: ports.forwards: 3 ports cannot go to 2"},
		{"ports: {forwards: [1-9000 -> 1-9000]}", "1:20: ports.forwards: 9000 ports are too many for one rule; there may be 4096"},
		{"ports:\n  forwards:\n  - 80 -> 80\n  - 0.0.0.0:70-90 -> 70-90\n", "4:5: port 80 is listened on already, by the rule in line 3"},
		{"ports:\n  forwards:\n  - 80 -> 80\n  - '[::1]:80 -> 81'\n", "4:5: port 80 is listened on already, by the rule in line 3"},
		{"ports:\n  reverse:\n  - debian:80 -> 80\n  - debian:80 -> 81\n", "4:5: port 80 is listened on already, by the rule in line 3"},
		{"ports: {reverse: ['80 -> a b:80']}", `1:19: ports.reverse: "a b" is no domain name`},
		{"ports: {reverse: [53/udp -> 53]}", "1:19: ports.reverse: UDP cannot be forwarded from a distro to the host; programs in it reach the host's at host.lsub.internal"},
		{"ports: {reverse: [{from: 53, to: 53, proto: both}]}", "1:19: ports.reverse: UDP cannot be forwarded from a distro to the host; programs in it reach the host's at host.lsub.internal"},
		{"ports: {sockets: [/a -> /b]}", "1:19: ports.sockets: one side has to be in a distro, as debian:/run/x.sock is"},
		{"ports: {sockets: ['debian:/a -> ubuntu:/b']}", "1:19: ports.sockets: both debian:/a and ubuntu:/b are in distros; one side has to be the host's"},
		{"ports: {sockets: ['a.sock -> debian:/b']}", `1:19: ports.sockets: "a.sock" is no path from the root, from ~/ or from a $VARIABLE`},
		{"ports: {sockets: ['debian:/a -> /x', 'debian:/a -> /y']}", "1:38: debian:/a is listened on already, by the rule in line 1"},
		{"distros: {'a b': {}}", `1:11: distros: "a b" cannot be the name of a distro`},
		{"distros: {a: {}, A: {}}", "1:18: distros: A is there already, in other letters"},
		{"distros: {a: {network: bridged}}", `1:24: distros.a.network: "bridged" is not one of shared, isolated`},
	} {
		p, err := Parse("t.yaml", []byte(tc.text))
		var e *Error
		if p != nil || !errors.As(err, &e) {
			t.Errorf("%q: %v", tc.text, err)
			continue
		}
		if got := firstLine(err.Error()); got != "t.yaml:"+tc.want {
			t.Errorf("%q:\n got %s\nwant t.yaml:%s", tc.text, got, tc.want)
		}
	}
}

// firstLine leaves out the line of the file and the caret.
func firstLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// TestAllProblems wants all that is wrong, in the file's order.
func TestAllProblems(t *testing.T) {
	_, err := Parse("t.yaml", []byte("ports:\n  auto: what\n  forwards: [x]\ncpus: many\nzzz: 1\nidle: {vm: 1}\n"))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%d:%d", p.Line, p.Column))
	}
	if want := "2:9 3:14 4:7 5:1 6:12"; strings.Join(got, " ") != want {
		t.Errorf("problems at %v, want %s", got, want)
	}
	_, err = Parse("t.yaml", []byte(strings.Repeat("x: 1\n", 50)))
	if !errors.As(err, &e) || len(e.Problems) != maxProblems || !strings.HasSuffix(err.Error(), "(and 30 more problems)\n    x: 1\n    ^") {
		t.Errorf("50 problems: %v", err)
	}
}

func TestTooManyRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("ports:\n  forwards:\n")
	for i := range maxRules + 1 {
		fmt.Fprintf(&b, "  - %d -> 80\n", i+1)
	}
	_, err := Parse("t.yaml", []byte(b.String()))
	if err == nil || !strings.HasPrefix(err.Error(), "t.yaml:3:3: ports.forwards has 1025 rules; there may be 1024\n") {
		t.Error(err)
	}
}

// FuzzParse wants a profile or an error with places in the file, whatever the file has.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "cpus: 2\nmemory: 4G\nidle: {vm: never, distro: 5m}\n",
		"network: {subnet: 10.0.0.0/24, host_access: off, proxy: {http: http://p:1}, dns: [1.1.1.1], hosts: {a: 1.2.3.4}}\n",
		"ports:\n  forwards:\n  - 8080 -> debian:80\n  - {from: '[::]:53', to: 53, proto: both}\n  reverse: [d:5432 -> 5432]\n  sockets: ['~/x -> d:/y']\n  ignore: [1-9/udp]\n",
		"a: &a [*a]\n", "a: &a {b: *a}\n", "distros: {x: {network: isolated, ports: {auto: off}}}\n---\n", wholeDistro, "ports: &p\n  forwards: [1 -> 1]\nx: *p\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse("f", data)
		if err == nil {
			for _, r := range p.Ports.Forwards {
				if r.Port == 0 || r.Count < 1 || int(r.Listen.Port())+r.Count > 1<<16 || int(r.Port)+r.Count > 1<<16 || !r.Listen.Addr().IsValid() {
					t.Fatalf("%q: %+v", data, r)
				}
			}
			return
		}
		var e *Error
		if p != nil || !errors.As(err, &e) || len(e.Problems) == 0 {
			t.Fatalf("%q: %v, %v", data, p, err)
		}
		lines := 2 + strings.Count(string(data), "\n") + strings.Count(string(data), "\r") + strings.Count(string(data), "\u0085") + strings.Count(string(data), "\u2028") + strings.Count(string(data), "\u2029")
		for _, pr := range e.Problems {
			if pr.Line < 1 || pr.Line > lines || pr.Column < 1 || pr.Text == "" {
				t.Fatalf("%q: %+v", data, pr)
			}
		}
	})
}
