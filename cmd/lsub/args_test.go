package main

import (
	"strings"
	"testing"
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

func TestSize(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 40: "1.0 TiB", 1<<64 - 1: "16.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
