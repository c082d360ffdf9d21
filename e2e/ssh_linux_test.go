package e2e

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSSH reaches a distro with OpenSSH's programs, rsync and git, through 'lsub ssh-proxy'.
func TestSSH(t *testing.T) {
	h := freshWith(t, "debian?include=git,rsync,python3-minimal,libpython3-stdlib")
	dir := t.TempDir()
	config := filepath.Join(dir, "config")
	if err := os.WriteFile(config, []byte(h.ok(t, "ssh-config")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wrapper := filepath.Join(dir, "ssh")
	if err := os.WriteFile(wrapper, []byte("#!/bin/sh\nexec ssh -F "+config+" \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(stdin io.Reader, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		var stderr bytes.Buffer
		cmd.Dir, cmd.Stdin, cmd.Stderr = dir, stdin, &stderr
		cmd.Env = append(h.env, "GIT_SSH="+wrapper, "RSYNC_RSH="+wrapper, "GIT_CONFIG_GLOBAL=/dev/null",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v: %s%s", name, strings.Join(args, " "), err, out, stderr.String())
		}
		return string(out)
	}
	ssh := func(args ...string) string {
		t.Helper()
		return run(nil, "ssh", append([]string{"-F", config}, args...)...)
	}

	h.sh(t, "debian", "useradd -m -s /bin/bash ann")
	if got := ssh("ann@debian.lsub", "id -un; pwd; echo $((6*7))"); got != "ann\n/home/ann\n42\n" {
		t.Errorf("a command: %q", got)
	}
	if got := ssh("-tt", "debian.lsub", "stty size; tty; exit 0"); !strings.Contains(got, "/dev/pts/") || !strings.Contains(got, "24 80") {
		t.Errorf("a terminal: %q", got)
	}
	if err := exec.Command("ssh", "-F", config, "debian.lsub", "kill -TERM $$").Run(); err == nil || !strings.Contains(err.Error(), "143") {
		t.Errorf("a command that a signal ends: %v", err)
	}
	// As editors install their server: an archive into a shell.
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<17)
	if err := os.WriteFile(dir+"/big", big, 0o640); err != nil {
		t.Fatal(err)
	}
	archive := run(nil, "tar", "-cf", "-", "big")
	if got := run(strings.NewReader(archive), "ssh", "-F", config, "ann@debian.lsub", "mkdir -p .srv && tar -C .srv -xf - && wc -c <.srv/big"); got != "2097152\n" {
		t.Errorf("an archive into a shell: %q", got)
	}

	run(nil, "scp", "-F", config, "big", "ann@debian.lsub:scp")
	run(nil, "scp", "-F", config, "ann@debian.lsub:scp", "back")
	if back, _ := os.ReadFile(dir + "/back"); !bytes.Equal(back, big) {
		t.Errorf("scp: %d bytes", len(back))
	}
	run(strings.NewReader("put big sftp\nrename sftp renamed\nchmod 600 renamed\nmkdir d\nls -l\n"), "sftp", "-F", config, "-b", "-", "ann@debian.lsub")
	if got := ssh("ann@debian.lsub", "stat -c '%a %s %U' renamed; stat -c %F d"); got != "600 2097152 ann\ndirectory\n" {
		t.Errorf("sftp: %q", got)
	}
	os.MkdirAll(dir+"/tree/sub", 0o755)
	os.WriteFile(dir+"/tree/sub/f", []byte("rsync"), 0o644)
	run(nil, "rsync", "-a", "tree/", "ann@debian.lsub:tree/")
	os.WriteFile(dir+"/tree/sub/f", []byte("again, longer"), 0o644) // rsync compares size and second
	run(nil, "rsync", "-a", "tree/", "ann@debian.lsub:tree/")
	if got := ssh("ann@debian.lsub", "cat tree/sub/f"); got != "again, longer" {
		t.Errorf("rsync: %q", got)
	}
	ssh("ann@debian.lsub", "git init -q --bare repo.git")
	run(nil, "sh", "-ec", "git init -q work; cd work; echo x >f; git add f; git commit -qm one; git push -q ann@debian.lsub:repo.git HEAD:refs/heads/main; git clone -q -b main ann@debian.lsub:repo.git ../clone; cmp f ../clone/f")

	// A long-lived forward to localhost of the distro, and to a socket of it.
	for name, at := range map[string]string{
		"port":   "import socket; s=socket.create_server(('127.0.0.1', 18411))",
		"socket": "import socket; s=socket.socket(socket.AF_UNIX); s.bind('/home/ann/s'); s.listen()",
	} {
		server := exec.Command("ssh", "-F", config, "ann@debian.lsub", "exec python3 -c \""+at+"\nprint('up', flush=True)\nwhile 1:\n c,_=s.accept()\n c.sendall(c.recv(100)); c.close()\"")
		out, err := server.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		stdin, err := server.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		out.Read(make([]byte, 3))
		to := map[string]string{"port": "localhost:18411", "socket": "/home/ann/s"}[name]
		local := filepath.Join(dir, name)
		forward := exec.Command("ssh", "-F", config, "-N", "-L", local+":"+to, "ann@debian.lsub")
		if err := forward.Start(); err != nil {
			t.Fatal(err)
		}
		var got string
		within(t, slow, "the forward to a "+name+" answers", func() bool {
			c, err := net.Dial("unix", local)
			if err != nil {
				return false
			}
			defer c.Close()
			io.WriteString(c, "hello")
			b, _ := io.ReadAll(c)
			got = string(b)
			return true
		})
		if got != "hello" {
			t.Errorf("the forward to a %s: %q", name, got)
		}
		forward.Process.Kill()
		forward.Wait()
		stdin.Close()
		server.Process.Kill()
		server.Wait()
	}
	out, err := exec.Command("ssh", "-F", config, "-W", "example.com:80", "debian.lsub").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "no further") {
		t.Errorf("a forward beyond the distro: %v: %s", err, out)
	}
	if got := h.sh(t, "debian", "ls /usr/sbin/sshd 2>&1 || true"); !strings.Contains(got, "No such file") {
		t.Errorf("the distro has an sshd: %s", got)
	}
}
