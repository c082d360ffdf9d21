package profile

import (
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const wholeDistro = `
distros:
  Web:
    image: debian:trixie
    user: ada
    systemd: yes
    limits: {memory: 1GiB, cpus: 1.5, pids: none}
    idle: never
    autostart: off
    network: isolated
    environment: {EDITOR: vim, EMPTY: , TZ: "Europe/Berlin"}
    packages: [git, libc6:amd64]
    files:
      /etc/motd: "hello\n"
      ~/.netrc: {source: netrc, mode: 0600}
      /etc/app.conf: {content: "x $HOME {{y}}", mode: 0640, owner: root:adm}
      /etc/empty:
    provision:
    - echo one
    - name: dot files
      mode: user
      file: dot.sh
      timeout: 10m
    - {mode: boot, script: "true", unless: "test -e /x", creates: /run/y}
    probes:
    - port: 8080
    - {http: "http://localhost:8080/", timeout: 5s}
    - script: systemctl is-active web
  plain:
`

func TestWholeDistro(t *testing.T) {
	p, err := Parse("t.yaml", []byte(wholeDistro))
	if err != nil {
		t.Fatal(err)
	}
	memory, cpus, none, never, yes := int64(1<<30), int64(1500), int64(0), Never, true
	want := Distro{
		Network: NetworkIsolated, AutoPorts: true,
		Image: "debian:trixie", User: "ada", Systemd: &yes, Limits: Limits{&memory, &cpus, &none}, Idle: &never, Autostart: "off",
		Environment: []string{"EDITOR=vim", "EMPTY=", "TZ=Europe/Berlin"},
		Packages:    []string{"git", "libc6:amd64"},
		Files: []GuestFile{
			{Path: "/etc/motd", Content: "hello\n", Mode: 0o644, At: "t.yaml:14:7"},
			{Path: "~/.netrc", Source: "netrc", Mode: 0o600, At: "t.yaml:15:7"},
			{Path: "/etc/app.conf", Content: "x $HOME {{y}}", Mode: 0o640, Owner: "root:adm", At: "t.yaml:16:7"},
			{Path: "/etc/empty", Mode: 0o644, At: "t.yaml:17:7"},
		},
		Provision: []Step{
			{Name: "step 1", Mode: StepSystem, Script: "echo one", At: "t.yaml:19:7"},
			{Name: "dot files", Mode: StepUser, File: "dot.sh", Timeout: 10 * time.Minute, At: "t.yaml:20:7"},
			{Name: "step 3", Mode: StepBoot, Script: "true", Unless: "test -e /x", Creates: "/run/y", At: "t.yaml:24:7"},
		},
		Probes: []Probe{
			{Port: 8080, Timeout: probeTimeout, At: "t.yaml:26:7"},
			{HTTP: "http://localhost:8080/", Timeout: 5 * time.Second, At: "t.yaml:27:7"},
			{Script: "systemctl is-active web", Timeout: probeTimeout, At: "t.yaml:28:7"},
		},
	}
	if diff := cmp.Diff(want, p.Distros["web"]); diff != "" {
		t.Error("-want +got:\n" + diff)
	}
	if diff := cmp.Diff([]string{"web", "plain"}, p.DistroNames()); diff != "" {
		t.Error(diff)
	}
}

// TestDistroMistakes has mistakes that people make, also those who know other tools.
func TestDistroMistakes(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"{img: debian}", `15: unknown key "img"; there are autostart, cache, environment, files, idle, image, limits, network, packages, ports, probes, provision, systemd, user`},
		{"{image: two words}", `22: distros.a.image: "two words" is no image; write debian, alpine:3.22 or oci:REGISTRY/REPOSITORY:TAG`},
		{"{user: Ada Lovelace}", `21: distros.a.user: "Ada Lovelace" cannot be the name of an account`},
		{"{limits: {mem: 1G}}", `24: unknown key "mem"; there are cpus, memory, pids`},
		{"{limits: {memory: 512}}", `32: distros.a.limits.memory: 512 is too little: 16M is the least; none is no limit`},
		{"{limits: {cpus: two}}", `30: distros.a.limits.cpus: "two" is no number of CPUs; write 1.5, or none for no limit`},
		{"{limits: {pids: 1}}", `30: distros.a.limits.pids: "1" is no number of processes; 16 is the least, none is no limit`},
		{"{autostart: yes}", `26: distros.a.autostart: "yes" is not one of vm, login, off`},
		{"{environment: [A=b]}", `28: distros.a.environment has to be keys with values, not a list`},
		{"{environment: {A B: c}}", `29: distros.a.environment: "A B" cannot be the name of a variable`},
		{"{environment: {A: \"x\\ny\"}}", `32: distros.a.environment.A: has to be one line`},
		{"{packages: [git, git]}", `31: distros.a.packages: git is in the list already`},
		{"{packages: [git=2.0]}", `26: distros.a.packages: "git=2.0" is no name of a package`},
		{"{packages: [--force-yes]}", `26: distros.a.packages: "--force-yes" is no name of a package`},
		{"{files: {motd: x}}", `23: distros.a.files: "motd" is no path in a distro; write /etc/motd or ~/.profile`},
		{"{files: {/etc/../x: y}}", `23: distros.a.files: "/etc/../x" is no path of a file`},
		{"{files: {/x: {mode: 0999}}}", `34: distros.a.files[].mode: "0999" is no mode; write 0644`},
		{"{files: {/x: {content: a, source: b}}}", `48: distros.a.files./x: a file has either content or source`},
		{"{files: {~/x: {content: a, owner: b}}}", `23: distros.a.files.~/x: a file in the home directory belongs to the default user; leave owner out`},
		{"{files: {/x: {owner: 'a b'}}}", `35: distros.a.files[].owner: "a b" is no owner; write USER or USER:GROUP`},
		{"{provision: [{mode: system}]}", "27: distros.a.provision: a step needs a script or a file"},
		{"{provision: [{script: a, file: b}]}", "27: distros.a.provision: a step has either a script or a file"},
		{"{provision: [{run: a}]}", `28: unknown key "run"; there are creates, file, mode, name, script, timeout, unless`},
		{"{provision: [{mode: data, script: a}]}", `34: distros.a.provision[].mode: "data" is not one of system, user, boot, ready`},
		{"{provision: [a, {name: step 1, script: b}]}", `30: distros.a.provision: a step before it is called "step 1" already`},
		{"{provision: [{script: a, timeout: 5}]}", `48: distros.a.provision[].timeout: "5" has no unit; write 5s or 5m`},
		{"{provision: [{script: a, creates: x}]}", `48: distros.a.provision[].creates: "x" is no path in a distro; write /etc/motd or ~/.profile`},
		{"{probes: [{port: 0}]}", `31: distros.a.probes[].port: "0" is no port; there are 1 to 65535`},
		{"{probes: [{port: 1, script: x}]}", "24: distros.a.probes: a probe has one of script, port and http"},
		{"{probes: [{http: 'https://example.org'}]}", `31: distros.a.probes[].http: "https://example.org" is no address in the distro; write http://localhost:8080/health`},
	} {
		text := "distros: {a: " + tc.text + "}"
		_, err := Parse("t.yaml", []byte(text))
		if want := "t.yaml:1:" + tc.want; err == nil || firstLine(err.Error()) != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
}

// TestCaret wants the line below what is said of it, and a caret at its column.
func TestCaret(t *testing.T) {
	_, err := Parse("t.yaml", []byte("cpus: 2\r\nnetwork: {x: é, memry: 1}\r\nmemory: lots\r\n"))
	want := "t.yaml:2:11: unknown key \"x\"; there are ca_bundle, dns, host_access, hosts, proxy, search, subnet\n" +
		"    network: {x: é, memry: 1}\n              ^\n" +
		"t.yaml:2:17: unknown key \"memry\"; there are ca_bundle, dns, host_access, hosts, proxy, search, subnet\n" +
		"    network: {x: é, memry: 1}\n                    ^\n" +
		"t.yaml:3:9: memory: \"lots\" is no size; write 512M or 4G\n    memory: lots\n            ^"
	if err.Error() != want {
		t.Errorf("got\n%s\nwant\n%s", err, want)
	}
}

func TestHostFile(t *testing.T) {
	root := "" // before a path from the root, in this system's words
	if runtime.GOOS == "windows" {
		root = "C:"
	}
	getenv := func(name string) string { return map[string]string{"X": root + "/x"}[name] }
	for text, want := range map[string]string{
		"a/b": "/dir/a/b", "./a": "/dir/a", "../a": "/a", root + "/a/../b": "/b", "~/a": "/home/u/a", "$X/a": "/x/a",
	} {
		want = filepath.FromSlash(root + want)
		if got, err := HostFile(text, root+"/dir", root+"/home/u", getenv); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
	if _, err := HostFile("$NONE/a", "/dir", "/home/u", getenv); err == nil {
		t.Error("a variable that is not set was taken")
	}
}
