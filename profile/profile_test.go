package profile

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// sameProfile compares what profiles say, not where.
var sameProfile = cmp.Options{
	cmpopts.IgnoreUnexported(Profile{}), cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func TestParse(t *testing.T) {
	addr, port, prefix := netip.MustParseAddr, netip.MustParseAddrPort, netip.MustParsePrefix
	for _, tc := range []struct {
		name, text string
		want       func(p *Profile)
	}{
		{"empty", "", func(*Profile) {}},
		{"comments", "# nothing\n---\n", func(*Profile) {}},
		{"keys without values", "memory:\nnetwork:\nports: ~\ndistros:\nidle: {vm: }\n", func(*Profile) {}},
		{"byte order mark, carriage returns", "\ufeffcpus: 2\r\nmemory: 2G\r\n", func(p *Profile) { p.CPUs, p.Memory = 2, 2<<30 }},
		{"idle", "idle:\n  vm: 90s\n  distro: never\n", func(p *Profile) { p.Idle = Idle{90 * time.Second, Never} }},
		{"catalogues", "catalogues:\n- https://a.example/x.json\n- {url: https://b.example, kind: wsl}\n", func(p *Profile) {
			p.Catalogues = []Catalogue{{"https://a.example/x.json", ""}, {"https://b.example", "wsl"}}
		}},
		{"mounts", "mounts:\n- \"~\"\n- {path: ~/src, writable: yes, metadata: true, carrier: stream}\n", func(p *Profile) {
			p.DefaultMounts = false
			p.Mounts = []Mount{{Dir: "~/"}, {"~/src", true, true, CarrierStream}}
		}},
		{"the home folder", "mounts: [~]\n", func(p *Profile) { p.Mounts, p.DefaultMounts = []Mount{{Dir: "~/"}}, false }},
		{"no mounts", "mounts: []\n", func(p *Profile) { p.Mounts, p.DefaultMounts = []Mount{}, false }},
		{"one catalogue", "catalogues: https://a.example\n", func(p *Profile) { p.Catalogues = []Catalogue{{"https://a.example", ""}} }},
		{"network", `
network:
  subnet: 10.9.8.0/24
  host_access: false
  ca_bundle: ~/ca.pem
  dns: [192.0.2.53, "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]:5353"]
  search: Corp.Example.
  hosts:
    db: 192.0.2.1
    Web.Corp.example: [192.0.2.2, "2001:db8::2"]
`, func(p *Profile) {
			p.Network.Subnet, p.Network.HostAccess, p.Network.CABundle = prefix("10.9.8.0/24"), false, "~/ca.pem"
			p.Network.DNS = []netip.AddrPort{port("192.0.2.53:53"), port("192.0.2.54:5353"), port("[2001:db8::53]:53"), port("[2001:db8::54]:5353")}
			p.Network.Search = []string{"corp.example"}
			p.Network.Hosts = map[string][]netip.Addr{"db": {addr("192.0.2.1")}, "web.corp.example": {addr("192.0.2.2"), addr("2001:db8::2")}}
		}},
		{"no proxy", "network: {proxy: off}", func(p *Profile) { p.Network.Proxy = Proxy{Mode: ProxyOff} }},
		{"own proxy", "network: {proxy: {http: 'http://user:secret@p.example:3128', all: 'socks5h://127.0.0.1:1080', no: [a.example, .b.example]}}", func(p *Profile) {
			p.Network.Proxy = Proxy{Mode: ProxySet, HTTP: "http://user:secret@p.example:3128", All: "socks5h://127.0.0.1:1080", No: "a.example,.b.example"}
		}},
		{"ports", "ports:\n  auto: no\n  host_address: 0.0.0.0\n  next_free: yes\n  ranges: [1024-65535, 80/tcp]\n  ignore: [22, 5000-6000/udp]\n", func(p *Profile) {
			p.Ports.Auto, p.Ports.HostAddress, p.Ports.NextFree = false, addr("0.0.0.0"), true
			p.Ports.Ranges = []PortRange{{1024, 65535, Both}, {80, 80, TCP}}
			p.Ports.Ignore = []PortRange{{22, 22, Both}, {5000, 6000, UDP}}
		}},
		{"forwards", `
ports:
  forwards:
  - 8080 -> debian:80
  - "[::1]:8081→Debian:81"
  - {from: "0.0.0.0:53", to: 5353, proto: both}
  - 127.0.0.2:9000-9009/udp -> 9100-9109
  host_address: localhost
`, func(p *Profile) {
			p.Ports.Forwards = []Forward{
				{TCP, port("127.0.0.1:8080"), "debian", 80, 1, "t.yaml:4:5"},
				{TCP, port("[::1]:8081"), "debian", 81, 1, "t.yaml:5:5"},
				{Both, port("0.0.0.0:53"), "", 5353, 1, "t.yaml:6:5"},
				{UDP, port("127.0.0.2:9000"), "", 9100, 10, "t.yaml:7:5"},
			}
		}},
		{"users of ports", "ports: {users: owner}", func(p *Profile) { p.Ports.Users = PortUsersOwner }},
		{"forwards take the host address, wherever it stands", "ports: {forwards: [1 -> 2], host_address: 192.0.2.7}", func(p *Profile) {
			p.Ports.HostAddress = addr("192.0.2.7")
			p.Ports.Forwards = []Forward{{TCP, port("192.0.2.7:1"), "", 2, 1, "t.yaml:1:20"}}
		}},
		{"reverse", `
ports:
  reverse:
  - debian:5432 -> 5432
  - 6379 -> localhost:6380
  - debian:0.0.0.0:53/tcp -> dns.example:53
  - "[::1]:25 -> [2001:db8::1]:2525"
`, func(p *Profile) {
			p.Ports.Reverse = []Reverse{
				{TCP, "debian", port("127.0.0.1:5432"), "127.0.0.1", 5432, 1, "t.yaml:4:5"},
				{TCP, "", port("127.0.0.1:6379"), "localhost", 6380, 1, "t.yaml:5:5"},
				{TCP, "debian", port("0.0.0.0:53"), "dns.example", 53, 1, "t.yaml:6:5"},
				{TCP, "", port("[::1]:25"), "2001:db8::1", 2525, 1, "t.yaml:7:5"},
			}
		}},
		{"sockets", `
ports:
  sockets:
  - ~/docker.sock -> debian:/var/run/docker.sock
  - debian:/run/agent.sock -> $SSH_AUTH_SOCK
  - {from: 'C:/x.sock', to: 'd:/y.sock'}
`, func(p *Profile) {
			p.Ports.Sockets = []Socket{
				{false, "~/docker.sock", "debian", "/var/run/docker.sock", "t.yaml:4:5"},
				{true, "$SSH_AUTH_SOCK", "debian", "/run/agent.sock", "t.yaml:5:5"},
				{false, "C:/x.sock", "d", "/y.sock", "t.yaml:6:5"},
			}
		}},
		{"distros", "distros:\n  Debian: {network: isolated}\n  quiet: {ports: {auto: off}}\n  plain:\n", func(p *Profile) {
			p.Distros = map[string]Distro{"debian": {Network: NetworkIsolated, AutoPorts: true}, "quiet": {Network: NetworkShared, AutoPorts: false}, "plain": {Network: NetworkShared, AutoPorts: true}}
		}},
		{"distros follow what is said of all", "distros: {a: {}, b: {ports: {auto: on}}}\nports: {auto: off}\n", func(p *Profile) {
			p.Ports.Auto = false
			p.Distros = map[string]Distro{"a": {Network: NetworkShared, AutoPorts: false}, "b": {Network: NetworkShared, AutoPorts: true}}
		}},
		{"aliases", "idle: {vm: &t 2m, distro: *t}", func(p *Profile) { p.Idle = Idle{2 * time.Minute, 2 * time.Minute} }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := Default()
			tc.want(want)
			got, err := Parse("t.yaml", []byte(tc.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, sameProfile); diff != "" {
				t.Error("-want +got:\n" + diff)
			}
		})
	}
}

func TestDistro(t *testing.T) {
	p, err := Parse("t.yaml", []byte("ports: {auto: off}\ndistros: {debian: {network: isolated, ports: {auto: on}}}"))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Distro("Debian"), (Distro{Network: NetworkIsolated, AutoPorts: true}); !cmp.Equal(got, want) {
		t.Errorf("Debian has %v, want %v", got, want)
	}
	if got, want := p.Distro("other"), (Distro{Network: NetworkShared, AutoPorts: false}); !cmp.Equal(got, want) {
		t.Errorf("other has %v, want %v", got, want)
	}
}

func TestAt(t *testing.T) {
	p, err := Parse("t.yaml", []byte("memory: 2G\nnetwork:\n  subnet: 10.0.0.0/24\n"))
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"memory": "t.yaml:1:9", "network.subnet": "t.yaml:3:11", "cpus": "t.yaml"} {
		if got := p.At(key); got != want {
			t.Errorf("%s is at %s, want %s", key, got, want)
		}
	}
}

func TestAutomatic(t *testing.T) {
	p, err := Parse("t.yaml", []byte("ports: {ranges: [1000-2000, 80/tcp], ignore: [1500, 1600/udp]}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		proto Proto
		port  uint16
		want  bool
	}{{TCP, 80, true}, {UDP, 80, false}, {TCP, 999, false}, {UDP, 1000, true}, {TCP, 2000, true}, {TCP, 2001, false}, {TCP, 1500, false}, {TCP, 1600, true}, {UDP, 1600, false}} {
		if got := p.Ports.Automatic(tc.proto, tc.port); got != tc.want {
			t.Errorf("%v %d: %v", tc.proto, tc.port, got)
		}
	}
	if all := Default(); !all.Ports.Automatic(TCP, 1) || !all.Ports.Automatic(UDP, 65535) {
		t.Error("without ranges, a port is not automatic")
	}
}

func TestHostAddresses(t *testing.T) {
	for in, want := range map[string]string{"127.0.0.1": "127.0.0.1 ::1", "::1": "::1", "0.0.0.0": "0.0.0.0", "192.0.2.1": "192.0.2.1"} {
		var got []string
		for _, a := range HostAddresses(netip.MustParseAddr(in)) {
			got = append(got, a.String())
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s means %v, want %s", in, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, File)
	p, err := Load(path)
	if err != nil || p.Idle != Default().Idle {
		t.Fatalf("no file: %+v, %v", p, err)
	}
	if err := os.WriteFile(path, []byte("cpus: 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, err = Load(path); err != nil || p.CPUs != 3 {
		t.Fatalf("%+v, %v", p, err)
	}
	if err := os.WriteFile(path, []byte("cpu: 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err = Load(path); err == nil || firstLine(err.Error()) != path+`:1:1: unknown key "cpu"; did you mean "cpus"?` {
		t.Errorf("%v", err)
	}
	if _, err := Load(dir); err == nil {
		t.Error("a directory is a profile")
	}
	if err := os.WriteFile(path, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "bytes") {
		t.Errorf("a huge file: %v", err)
	}
}

func TestExpand(t *testing.T) {
	if filepath.Separator != '/' {
		t.Skip("the paths are those of UNIX")
	}
	env := func(name string) string {
		return map[string]string{"SSH_AUTH_SOCK": "/tmp/agent", "XDG_RUNTIME_DIR": "/run/user/7", "REL": "x"}[name]
	}
	for in, want := range map[string]string{
		"/a/../b": "/b", "~/x": "/home/me/x", "$SSH_AUTH_SOCK": "/tmp/agent", "${XDG_RUNTIME_DIR}/d.sock": "/run/user/7/d.sock",
		"$NONE/x": "", "$REL": "", "~other/x": "",
	} {
		got, err := Expand(in, "/home/me", env)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", in, got, err)
		}
	}
}

func TestParseSize(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "123": 123, "1k": 1 << 10, "512M": 512 << 20, "4G": 4 << 30, "4GiB": 4 << 30, "4 GiB": 4 << 30, "4GB": 4e9, "1.5g": 3 << 29, "1T": 1 << 40, "7b": 7,
		"": -1, "G": -1, "-1G": -1, "4X": -1, "4Gi": -1, "4GG": -1, "1e3": -1, "0x10": -1, "inf": -1, "nan": -1, "99999999T": -1, "iB": -1, "4ib": -1, "4 G G": -1,
	} {
		got, err := ParseSize(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, %v; want %d", in, got, err, want)
		}
	}
}

// TestDocs holds the example of docs/profile.md to what is read, and what is read to the example.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/profile.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) == 0 {
		t.Fatal("docs/profile.md has no example")
	}
	for _, b := range blocks {
		if _, err := Parse("docs/profile.md", b[1]); err != nil {
			t.Error(err)
		}
	}
	d := newDecoder("docs/profile.md")
	d.read(blocks[0][1])
	for key := range d.known {
		if _, used := d.p.where[key]; !used {
			t.Errorf("the example does not have the key %s", key)
		}
	}
}
