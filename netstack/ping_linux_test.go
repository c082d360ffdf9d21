package netstack

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// TestPingFromHost pings for real, in a network namespace whose users may ping: an address
// that is there answers, one that is not does not. The host's own setting is not asked.
func TestPingFromHost(t *testing.T) {
	const inside = "LSUB_TEST_PING"
	if os.Getenv(inside) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestPingFromHost$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}}
		out, err := cmd.CombinedOutput()
		switch {
		case strings.Contains(string(out), "--- SKIP"):
			t.Skipf("%s", out)
		case cmd.ProcessState == nil:
			t.Skipf("no network namespace can be made here: %v", err)
		case err != nil:
			t.Errorf("%v:\n%s", err, out)
		}
		return
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
	there, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	if err := netlink.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(there.AsSlice())}); err != nil {
		t.Fatal(err)
	}
	// In a new namespace nobody may.
	if err := pingFromHost(there, 7, []byte("hello")); err == nil {
		t.Error("it pings where the host's users may not")
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0); err != nil {
		t.Fatal(err)
	}
	if err := pingFromHost(there, 7, []byte("hello")); err != nil {
		t.Errorf("an address that is there: %v", err)
	}
	if err := pingFromHost(other, 7, []byte("hello")); err == nil {
		t.Error("an address that is not there answers")
	}
}
