package cgroup

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestUnits(t *testing.T) {
	for group, want := range map[string]string{
		"init.scope":                          "", // base
		".":                                   "",
		"system.slice/systemd-logind.service": "",
		"system.slice/dbus.service":           "",
		"system.slice/system-getty.slice/getty@tty1.service":                                "",
		"user.slice/user-1000.slice/user@1000.service/init.scope":                           "",
		"user.slice/user-1000.slice/user@1000.service/app.slice/gpg-agent.service":          "",
		"user.slice/user-1000.slice/user@1000.service/app.slice/syncthing.service":          "service syncthing",
		"user.slice/user-1000.slice/session-3.scope":                                        "login session 3",
		"system.slice/tmp.mount":                                                            "",
		"system.slice/apache2.service":                                                      "service apache2",
		"system.slice/system-postgresql.slice/postgresql@15-main.service":                   "service postgresql@15-main",
		"system.slice/docker.service":                                                       "service docker",
		"system.slice/docker-0123456789abcdef0123.scope":                                    "container 0123456789ab",
		"system.slice/containerd.service/kubepods/besteffort/pod1":                          "service containerd",
		"user.slice/user-1000.slice/user@1000.service/user.slice/libpod-aa.scope/container": "container aa",
		"machine.slice/machine-web.scope":                                                   "scope machine-web",
	} {
		got := ""
		if unit := unitOf(group); unit != "" && !isBase(unit) {
			got = unitWords(unit)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", group, got, want)
		}
	}
}

// The session that stands for lsub's commands does not keep a distro up; one
// that somebody works in does.
func TestOnlyOurs(t *testing.T) {
	sleep := exec.Command("/bin/sh", "-c", "echo up; read line")
	sleep.Env = []string{"A=b", SessionMark}
	in, err := sleep.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := sleep.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer sleep.Wait()
	defer in.Close()
	// Start returns before the kernel shows the new environment.
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		pids []int
		want bool
	}{{[]int{sleep.Process.Pid}, true}, {[]int{sleep.Process.Pid, os.Getpid()}, false}, {nil, true}} {
		var procs strings.Builder
		for _, pid := range c.pids {
			fmt.Fprintln(&procs, pid)
		}
		group := fakeGroup(t, map[string]string{InsideGroup + "/cgroup.procs": procs.String()})
		if got := group.onlyOurs("."); got != c.want {
			t.Errorf("%v: %v", c.pids, got)
		}
	}
}
