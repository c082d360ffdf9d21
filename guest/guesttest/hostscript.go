package guesttest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// hostScript tells whether a command is one of those scripts of lsub's that change a distro.
// The host's own shell runs them: below the fake's disk is a directory for each distro, and
// the paths in the script and in its arguments lead there. Its PATH has the tools below and
// nothing else of the host's, and a package manager that knows all packages but "nonesuch".
func hostScript(argv []string) bool {
	return len(argv) > 2 && argv[1] == "-s" && argv[2] == "lsub-up" ||
		len(argv) > 3 && argv[1] == "-c" && strings.HasPrefix(argv[3], "lsub-")
}

// tools are what a distro of the fake has of the host.
var tools = []string{
	"sh", "cat", "mkdir", "mv", "rm", "chmod", "touch", "sleep", "head", "tr", "wc", "grep", "sha256sum", "stat", "date", "kill", "env", "id", "ls", "mkfifo", "test",
}

// stubs are what it has beside them.
var stubs = map[string]string{
	"sync":  "exit 0",
	"chown": "exit 0",
	"dpkg":  "exit 0",
	"dpkg-query": `for package; do :; done
[ -e "$STATE/packages/$package" ] && echo installed`,
	"apt-get": `if [ -e "$STATE/locked" ]; then
	rm "$STATE/locked"
	echo "E: Could not get lock /var/lib/dpkg/lock-frontend" >&2
	exit 100
fi
verb=
for word; do
	case $word in
	-*) ;;
	update | install | remove) verb=$word ;;
	nonesuch) echo "E: Unable to locate package nonesuch" >&2; exit 100 ;;
	Dpkg*) ;;
	*) case $verb in
		install) echo "Setting up $word"; [ $word = virtual ] || : >"$STATE/packages/$word" ;;
		remove) echo "Removing $word"; rm "$STATE/packages/$word" ;;
		esac ;;
	esac
done`,
}

// filesOf is the directory of a distro's files beside a data disk.
func filesOf(disk, id string) string { return filepath.Join(filepath.Dir(disk), "files-"+id) }

// distroDir makes the directory of the host that stands for a distro's files.
func (g *Guest) distroDir(id string) (string, error) {
	if g.Disk == "" {
		return "", errors.New("a guest without a disk has no files")
	}
	dir := filesOf(g.Disk, id)
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(bin); err == nil {
		return dir, nil
	}
	for _, d := range []string{bin, filepath.Join(dir, "packages"), filepath.Join(dir, "etc"), filepath.Join(dir, "home")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return "", err
		}
	}
	for _, name := range tools {
		if path, err := exec.LookPath(name); err == nil {
			if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
				return "", err
			}
		}
	}
	for name, text := range stubs {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// runOnHost runs such a script until it ends, or a signal or the end of its stream does.
func runOnHost(p *process) int {
	dir, err := p.g.distroDir(p.distro)
	if err != nil {
		p.stderr.Write([]byte(err.Error() + "\n"))
		return 126
	}
	below := strings.NewReplacer(
		"'/", "'"+dir+"/", " /run/lsub-up", " "+dir+"/run/lsub-up", " /etc/lsub.conf", " "+dir+"/etc/lsub.conf",
		// The test may be no root: what it writes counts as root's.
		"'%a %U %G %u %g'", "'%a root root 0 0'", "owner=$3", "owner=",
		`"$1" >"$dir/.new"`, `"${1#'`+dir+`'}" >"$dir/.new"`,
	)
	argv := slices.Clone(p.argv)
	var stdin io.Reader = &p.s.stdin
	if argv[1] == "-s" {
		text, err := io.ReadAll(stdin)
		if err != nil {
			return 1
		}
		stdin = strings.NewReader(below.Replace(string(text)))
	} else {
		argv[2] = below.Replace(argv[2])
		for i := 4; i < len(argv); i++ {
			if strings.HasPrefix(argv[i], "/") {
				argv[i] = dir + argv[i]
			}
		}
	}
	cmd := exec.Command("/bin/sh", argv[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = dir, stdin, p.stdout, p.stderr
	cmd.Env = append(slices.Clone(p.env), "PATH="+filepath.Join(dir, "bin"), "HOME="+filepath.Join(dir, "home"), "STATE="+dir)
	for i, e := range cmd.Env {
		if path, ok := strings.CutPrefix(e, "LSUB_CREATES=/"); ok {
			cmd.Env[i] = "LSUB_CREATES=" + dir + "/" + path
		}
	}
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		p.stderr.Write([]byte(err.Error() + "\n"))
		return 126
	}
	close(p.trapped)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case n := <-p.trap:
				signalGroup(cmd, n)
			case <-ended:
				return
			}
		}
	}()
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		if n := signalOf(exit); n != 0 {
			return signalled + n
		}
		return exit.ExitCode()
	}
	p.stderr.Write([]byte(err.Error() + "\n"))
	return 126
}
