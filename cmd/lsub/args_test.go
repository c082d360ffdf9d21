package main

import (
	"strings"
	"testing"

	"github.com/lsub/lsub/images"
)

func TestArrange(t *testing.T) {
	for line, want := range map[string]string{
		"":                               "",
		"list -q":                        "list --quiet",
		"install debian --name x":        "install --name x -- debian",
		"install debian -n x -f=y":       "install --name x --from-file=y -- debian",
		"unregister debian -y":           "unregister --yes -- debian",
		"stop -- -dash":                  "stop -- -dash",
		"exec debian -- ls -l":           "exec -- debian -- ls -l",
		"exec -u ada -e A=1 d ls -u x":   "exec --user ada --env A=1 -- d ls -u x",
		"exec -- d ls":                   "exec -- d ls",
		"run -t d -- -x":                 "run --tty -- d -- -x",
		"exec -u":                        "exec --user",
		"exec --bogus d ls":              "exec --bogus -- d ls",
		"uname -a":                       "@shell -- uname -a",
		"-- list":                        "@shell -- list",
		"-d list uname":                  "-d list @shell -- uname",
		"-d=x -- exec y":                 "-d=x @shell -- exec y",
		"--profile exec list":            "--profile exec list",
		"-":                              "@shell -- -",
		"--log-level debug -u a -- -- b": "--log-level debug -u a @shell -- -- b",
		"--version":                      "--version",
		"-d x list":                      "-d x @shell -- list",
		"-d x ls -q":                     "-d x @shell -- ls -q",
		"--cd=/ exec d ls":               "--cd=/ @shell -- exec d ls",
		"-u a help":                      "-u a @shell -- help",
		"ls /":                           "@shell -- ls /",
		"help":                           "--help",
		"--profile x help list":          "--profile x list --help",
		"list -qv":                       "list --quiet --verbose",
		"list -qx":                       "list -qx",
		"exec -tu ada d ls -qv":          "exec --tty --user ada -- d ls -qv",
		"exec -ut d ls":                  "exec -ut -- d ls",
	} {
		got := arrange((&app{}).root(), append([]string{"lsub"}, strings.Fields(line)...))
		if text := strings.Join(got[1:], " "); text != want {
			t.Errorf("%q: %q, want %q", line, text, want)
		}
	}
}

func TestAccountName(t *testing.T) {
	for name, want := range map[string]string{
		"ada": "ada", `CORP\Ada.Lovelace`: "ada-lovelace", "ada@example.com": "ada", "4ever": "ever", "_svc": "_svc",
		"": "user", "-": "user", "Ünal": "nal", "爱": "user", "games": "games-user", "systemd-network": "systemd-network-user",
		strings.Repeat("x", 40): strings.Repeat("x", 32), strings.Repeat("x", 31) + "-y": strings.Repeat("x", 31),
	} {
		got := accountName(name)
		if got != want {
			t.Errorf("%q gives %q, want %q", name, got, want)
		}
		if again := accountName(got); again != got {
			t.Errorf("%q is no account name itself: %q", got, again)
		}
	}
}

func TestAccountUID(t *testing.T) {
	for text, want := range map[string]uint32{
		"0": 0, "1000": 1000, "501": 1000, "4242": 4242, "65534": 1000, "S-1-5-21-1-2-3-1001": 1000, "4294967295": 1000, "70000": 70000,
	} {
		if got := accountUID(text); got != want {
			t.Errorf("%s gives %d, want %d", text, got, want)
		}
	}
}

func TestAccountFor(t *testing.T) {
	file := images.FileRef("x.tar")
	if u, err := accountFor(file, ""); u != nil || err != nil {
		t.Errorf("an archive: %v, %v", u, err)
	}
	if u, err := accountFor(file, "ada"); u.GetName() != "ada" || err != nil {
		t.Errorf("an archive and a user: %v, %v", u, err)
	}
	if u, err := accountFor(file, "root"); u != nil || err != nil {
		t.Errorf("root: %v, %v", u, err)
	}
	for _, bad := range []string{"Ada", "a b", "0day", "daemon"} {
		if _, err := accountFor(file, bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 40: "1.0 TiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
