package distroinit

import (
	"strings"
	"testing"

	"github.com/lsub/lsub/wslconf"
)

func TestMountsBelow(t *testing.T) {
	const fstab = "# /dev/sda /var ext4\n\nUUID=1 / btrfs\n/dev/vdc\t/srv/var\text4 defaults 0 0\nbroken\n/dev/vdd /variety ext4\n"
	if mountsBelow(fstab, "/var") {
		t.Error("no mount there is at /var")
	}
	for _, line := range []string{"/dev/vdc /var ext4", " /dev/vdc\t/var/log btrfs"} {
		if !mountsBelow(fstab+line, "/var") {
			t.Errorf("%q is missed", line)
		}
	}
}

func TestQuoteEnv(t *testing.T) {
	got := quoteEnv([]string{"http_proxy=http://u:50%25@p:1", `A=a "b" \c`, "B=x\ny"})
	if want := `"http_proxy=http://u:50%%25@p:1" "A=a \"b\" \\c" "B=x\ny"`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What manages networks is kept from eth0, and resolved hears of the name server unless the
// distro keeps a resolv.conf of its own.
func TestNetworkFiles(t *testing.T) {
	files := networkFiles(wslconf.Settings{WriteResolv: true}, Config{DNS: "192.0.2.1", Search: []string{"example.com", "lsub.internal"}})
	for file, want := range map[string]string{
		"/run/systemd/resolved.conf.d/00-lsub.conf": "[Resolve]\nDNS=192.0.2.1\nDomains=example.com lsub.internal\n",
		"/run/resolvconf/interface/eth0.lsub":       "search example.com lsub.internal\nnameserver 192.0.2.1\n",
		"/run/systemd/network/00-lsub.network":      "[Match]\nName=eth0\n\n[Link]\nUnmanaged=yes\n",
		"/run/NetworkManager/conf.d/00-lsub.conf":   "unmanaged-devices=interface-name:eth0\n",

		"/run/systemd/system/connman.service.d/00-lsub.conf": "ExecStart=connmand --nodaemon --nodevice=eth0 --nodnsproxy\n",
	} {
		if !strings.Contains(files[file], want) {
			t.Errorf("%s is %q, want %q in it", file, files[file], want)
		}
	}
	for name, files := range map[string]map[string]string{
		"a resolv.conf of its own": networkFiles(wslconf.Settings{}, Config{DNS: "192.0.2.1"}),
		"no network":               networkFiles(wslconf.Settings{WriteResolv: true}, Config{}),
	} {
		if _, ok := files["/run/systemd/resolved.conf.d/00-lsub.conf"]; ok || len(files) != 4 {
			t.Errorf("%s: %v", name, files)
		}
	}
}
