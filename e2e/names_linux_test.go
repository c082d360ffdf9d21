package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNames looks names up in a distro as a user does, with dig and the C library. The host's
// resolver is dnsmasq.
func TestNames(t *testing.T) {
	h := freshWith(t, toolsImage)
	// Without it, the VM has the default network.
	if err := os.Remove(filepath.Join(h.dir, "home", "profiles", "default", "network.json")); err != nil {
		t.Fatal(err)
	}
	o := newOwnHost(t, h)
	long := strings.Repeat("x", 250)
	o.dnsmasq(t, "127.0.0.1",
		"--host-record=www.test.example,192.0.2.1,2001:db8::1", "--host-record=intranet.corp.example,192.0.2.7", "--host-record=a.b.corp.example,192.0.2.8",
		"--txt-record=www.test.example,a b,c", "--srv-host=_ldap._tcp.test.example,ldap.test.example,389,1,2", "--mx-host=test.example,mail.test.example,10",
		"--dns-rr=test.example,2,026e730474657374076578616d706c6500", "--cname=alias.test.example,www.test.example",
		"--txt-record=long.test.example,"+strings.Join([]string{long, long, long, long, long, long}, ","),
		"--server=/vpn.example/127.0.0.2", "--address=/blocked.example/", "--local=/example/")
	o.dnsmasq(t, "127.0.0.2", "--host-record=www.vpn.example,192.0.2.3", "--host-record=www.test.example,192.0.2.99")
	o.write(t, o.resolv, "search corp.example\nnameserver 127.0.0.1\n")
	o.write(t, o.hosts, "127.0.0.1 localhost\n127.0.1.1 thishost\n192.0.2.50 printer printer.corp.example\n")

	// All in one command: under emulation, each one is slow.
	dig := func(t *testing.T, wants ...string) {
		t.Helper()
		var script strings.Builder
		for i := 0; i < len(wants); i += 2 {
			fmt.Fprintf(&script, "echo \"%s: $(%s 2>&1 | sort | tr '\\n' ' ')\"\n", wants[i], wants[i])
		}
		lines := strings.Split(h.sh(t, "debian", script.String()), "\n")
		for i := 0; i < len(wants); i += 2 {
			if want, got := wants[i]+": "+wants[i+1], strings.TrimSpace(lines[i/2]); got != want {
				t.Errorf("%s\nwant %s", got, want)
			}
		}
	}
	t.Run("types", func(t *testing.T) {
		dig(t,
			"dig +short www.test.example", "192.0.2.1",
			"dig +short www.test.example AAAA", "2001:db8::1",
			"dig +short www.test.example TXT", `"a b" "c"`,
			"dig +short _ldap._tcp.test.example SRV", "1 2 389 ldap.test.example.",
			"dig +short test.example MX", "10 mail.test.example.",
			"dig +short test.example NS", "ns.test.example.",
			"dig +short alias.test.example", "192.0.2.1 www.test.example.",
			"dig +short -x 192.0.2.1", "www.test.example.",
			"dig +short +tcp www.test.example", "192.0.2.1",
			"dig +noall +comments nobody.test.example | grep -o NXDOMAIN", "NXDOMAIN",
			"dig +short long.test.example TXT | wc -c", "1518",
			"dig +short +noedns long.test.example TXT | wc -c", "1518", // over TCP, after a truncated answer
			"dig +ignore +noedns long.test.example TXT | grep -o 'flags:.* tc'", "flags: qr aa tc",
			"dig +bufsize=4096 long.test.example TXT | grep -o 'udp: [0-9]*'", "udp: 1232",
			"dig +short www.vpn.example", "192.0.2.3")
	})
	t.Run("names of the network", func(t *testing.T) {
		dig(t,
			"dig +short debian.lsub.internal", "192.168.127.2",
			"dig +short gateway.lsub.internal", "192.168.127.1",
			"dig +short -x 192.168.127.254", "host.lsub.internal.",
			"dig +noall +comments nobody.lsub.internal | grep -o NXDOMAIN", "NXDOMAIN")
	})
	t.Run("as the host", func(t *testing.T) {
		dig(t,
			"getent ahostsv4 intranet | cut -d' ' -f1 | uniq", "192.0.2.7",
			"getent hosts printer | tr -s ' '", "192.0.2.50 printer.corp.example", // by its search domain
			"getent ahostsv4 a.b | cut -d' ' -f1 | uniq", "192.0.2.8", // relative to a search domain
			"dig +short thishost", "192.168.127.254",
			"dig +short -x 192.0.2.50", "printer.")
	})
	t.Run("reach", func(t *testing.T) {
		dig(t,
			// The host's loopback reaches the server itself; there is no other way.
			"dig +short @host.lsub.internal www.test.example", "192.0.2.1",
			"bash -c 'echo > /dev/tcp/192.168.127.1/54' 2>&1 | grep -o refused | head -1", "refused")
	})
	t.Run("live", func(t *testing.T) {
		o.write(t, o.resolv, "nameserver 127.0.0.2\n")
		o.write(t, o.hosts, "192.0.2.51 printer\n")
		dig(t,
			"dig +short www.test.example", "192.0.2.99",
			"dig +short printer", "192.0.2.51",
			"dig +noall +comments intranet | grep -o 'REFUSED\\|NXDOMAIN\\|SERVFAIL'", "REFUSED")
	})
	t.Run("profile", func(t *testing.T) {
		h.ok(t, "shutdown")
		profile := filepath.Join(h.dir, "home", "profiles", "default", "profile.yaml")
		o.write(t, profile, `
network:
  host_access: false
  subnet: 10.77.0.0/24
  dns: 127.0.0.1
  search: corp.example
  hosts: {db: 192.0.2.60}
`)
		defer os.Remove(profile)
		dig(t,
			"dig +short debian.lsub.internal", "10.77.0.2",
			"dig +short www.test.example", "192.0.2.1",
			"dig +short intranet", "192.0.2.7 intranet.corp.example.",
			"dig +short db", "192.0.2.60",
			"dig +short +tcp +tries=1 @host.lsub.internal www.test.example | grep -o refused | head -1", "refused")
	})
}
