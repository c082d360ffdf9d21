package main

import (
	"strings"
	"testing"
)

// TestWSL has every spelling that 'wsl --help' shows. What begins with "!" is refused, with
// these words.
func TestWSL(t *testing.T) {
	for line, want := range map[string]string{
		// run
		"":                           "",
		"ls -l":                      "ls -l",
		"-e ls -l":                   "--no-shell -- ls -l",
		"--exec ls":                  "--no-shell -- ls",
		"-d X -e CMD -u":             "-d X --no-shell -- CMD -u",
		"-d X -u U --cd /srv -- ls":  "-d X -u U --cd /srv -- ls",
		"--distribution X ls":        "--distro X -- ls",
		"--distribution=X -- ls":     "--distro=X -- ls",
		"--user U":                   "--user U",
		"~":                          "--cd ~",
		"~ -d X":                     "--cd ~ -d X",
		"-d X ~":                     "-d X --cd ~",
		"--cd ~ ls":                  "--cd ~ ls",
		"--shell-type none ls":       "--no-shell -- ls",
		"--shell-type login -d X ls": "-d X -- ls",
		"--shell-type odd ls":        "!--shell-type is standard, login or none",
		"-- ls -e":                   "-- ls -e",
		"-d X --system":              "!--system: lsub has no such flag of wsl.exe's",
		"--system":                   "!--system: there is no system distro",
		"--distribution-id {1}":      "!--distribution-id: distros are found by name",
		"-e":                         "!--exec needs a command",
		"--debug-shell":              "!--debug-shell: the VM has no shell of its own",
		// manage WSL
		"--help":                 "--help",
		"-v":                     "version",
		"--version":              "--version",
		"--status":               "status",
		"--shutdown":             "shutdown",
		"--shutdown --force":     "shutdown --force",
		"--install":              "install",
		"--install debian":       "install debian",
		"--install -d debian -n": "install debian",
		"--install --distribution debian --no-launch --web-download --name x": "install --name x debian",
		"--install --from-file f.wsl":                                         "install --from-file f.wsl",
		"--install debian --version 2":                                        "install debian",
		"--install debian --version 1":                                        "!--install --version 1: all distros share one kernel",
		"--install debian --location D":                                       "!--install --location: all distros are on the profile's data disk",
		"--install --no-distribution":                                         "!--install --no-distribution: lsub needs nothing but itself",
		"--install --enable-wsl1":                                             "!--install --enable-wsl1: ",
		"--install debian --vhd-size 1GB":                                     "!--install --vhd-size: ",
		"--install debian --fixed-vhd":                                        "!--install --fixed-vhd: ",
		"--install debian --bogus":                                            "!--install: unknown flag --bogus",
		"--install -d":                                                        "!--install -d needs a value",
		"--manage X --set-default-user ann":                                   "manage --set-default-user ann X",
		"--manage X --resize 1TB":                                             "!--manage --resize: ",
		"--manage X -s true":                                                  "!--manage -s: ",
		"--manage X --move D":                                                 "!--manage --move: ",
		"--mount D":                                                           "!--mount: ",
		"--unmount":                                                           "!--unmount: ",
		"--set-default-version 2":                                             "!--set-default-version: ",
		"--uninstall":                                                         "!--uninstall: ",
		"--update":                                                            "!--update: lsub does not replace itself",
		// manage distros
		"-l":                           "list",
		"--list":                       "list",
		"-l -v":                        "list --wsl",
		"--list --verbose":             "list --wsl",
		"-l -q":                        "list -q",
		"-l --running -q":              "list --running -q",
		"-l --all":                     "list",
		"-l -o":                        "list -o",
		"--list --online -v":           "list --online --verbose",
		"-s X":                         "set-default X",
		"--set-default X":              "set-default X",
		"--setdefault X":               "set-default X",
		"-t X":                         "stop X",
		"--terminate X":                "stop X",
		"--unregister X":               "unregister --yes X",
		"--export X f.tar":             "export X f.tar",
		"--export X - --format tar.gz": "export --format tar.gz X -",
		"--export X f --vhd":           "!--export --vhd: distros share one data disk",
		"--export X f --format vhd":    "!--export --format vhd: ",
		"--import X D f.tar":           "import X f.tar",
		"--import X D - --version 2":   "import X -",
		"--import X f":                 "!--import needs a name, a directory",
		"--import X D f --vhd":         "!--import --vhd: ",
		"--import-in-place X f.vhdx":   "!--import-in-place: ",
		"--set-version X 2":            "!--set-version: ",
	} {
		got, err := fromWSL(strings.Fields(line))
		if refusal, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), refusal) || exitCode(err) != exitFailed {
				t.Errorf("%q: %q, %v; want the refusal %q", line, got, err, refusal)
			}
			continue
		}
		if text := strings.Join(got, " "); err != nil || text != want {
			t.Errorf("%q: %q, %v; want %q", line, text, err, want)
		}
	}
}
