package e2e

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// httpGet gets a page over a new connection.
func httpGet(url string) (string, error) {
	c := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return string(b), err
}

// TestWebServer is a typical use: install a server, and open its page in the host's browser.
func TestWebServer(t *testing.T) {
	h := debian(t)
	h.sh(t, "debian", "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends nginx </dev/null; echo hello >/var/www/html/hello; systemctl restart nginx")
	for _, url := range []string{"http://localhost/hello", "http://127.0.0.1/hello", "http://[::1]/hello"} {
		within(t, quick, url, func() bool { s, err := httpGet(url); return s == "hello\n" && err == nil })
	}
	within(t, quick, "lsub ports knows it", func() bool {
		p := h.portOf(t, "tcp", 80)
		return p != nil && p.Process == "nginx" && p.Connections >= 3
	})
	h.sh(t, "debian", "systemctl stop nginx")
	within(t, quick, "the port closes", func() bool { return !answers("127.0.0.1:80") })
	h.sh(t, "debian", "systemctl start nginx")
	within(t, quick, "it is back", func() bool { s, _ := httpGet("http://localhost/hello"); return s == "hello\n" })
	t.Run("idle", func(t *testing.T) { testServerIdle(t, h) })
	h.ok(t, "stop", "debian")
	within(t, quick, "the port closes with the distro", func() bool { return !answers("127.0.0.1:80") })
}

// testServerIdle leaves the web server alone for several times its distro's idle limit. Only
// a command would start the distro again.
func testServerIdle(t *testing.T, h *host) {
	h.ok(t, "manage", "--idle", "1s", "debian")
	defer h.ok(t, "manage", "--idle", "default", "debian")
	time.Sleep(4 * time.Second)
	if s, err := httpGet("http://localhost/hello"); s != "hello\n" || err != nil {
		t.Errorf("the web server says %q, %v", s, err)
	}
	why := strings.Join(h.list(t)["debian"].KeptUpBy, "; ")
	for _, want := range []string{"service nginx", "listens on tcp "} {
		if !strings.Contains(why, want) {
			t.Errorf("kept up by %q, not by %q", why, want)
		}
	}
}

// servicesImage has services that people run in a distro and use from the host.
const servicesImage = "debian?include=nginx-light,postgresql,redis-server,openssh-server,openssh-client,systemd-resolved"

// setUpServices makes them listen on ports that no other test uses. Each one has the data for
// its test. The last lines are the checksum of /big and the key for ssh.
const setUpServices = `
echo 'server { listen 18380; listen [::]:18380; root /srv/www; }' >/etc/nginx/sites-enabled/default
mkdir -p /srv/www; head -c 33554432 /dev/urandom >/srv/www/big
systemctl restart nginx
sed -i 's/^port = .*/port = 18432/' /etc/postgresql/*/main/postgresql.conf
systemctl restart postgresql
su postgres -c "psql -q -p 18432 -c \"create role joe login password 'secret'\" -c 'create database joe owner joe'"
sed -i 's/^port .*/port 18379/' /etc/redis/redis.conf
systemctl restart redis-server
printf 'Port 18322\nPermitRootLogin prohibit-password\n' >/etc/ssh/sshd_config.d/e2e.conf
systemctl restart ssh
mkdir -p -m 700 ~/.ssh; ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519; cp ~/.ssh/id_ed25519.pub ~/.ssh/authorized_keys
sha256sum </srv/www/big | cut -d' ' -f1
cat ~/.ssh/id_ed25519
`

// TestServices uses the services of a distro from the host, with the usual clients.
func TestServices(t *testing.T) {
	h := debian(t)
	h.ok(t, "install", servicesImage, "--name", "services")
	defer h.run("unregister", "--yes", "services")
	sum, key, _ := strings.Cut(h.sh(t, "services", setUpServices), "\n")
	for _, n := range []int{18380, 18432, 18379, 18322} {
		for _, at := range both(n) {
			within(t, quick, at+" opens", func() bool { return answers(at) })
		}
	}
	t.Run("systemd-resolved", func(t *testing.T) {
		// As its package sets it up: every name goes through its stub.
		out := h.sh(t, "services", "ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf; getent hosts host.lsub.internal | wc -l")
		if out != "1" {
			t.Errorf("a name: %q", out)
		}
	})
	t.Run("nginx", func(t *testing.T) {
		b, err := httpGet("http://localhost:18380/big")
		if got := sha256.Sum256([]byte(b)); err != nil || hex.EncodeToString(got[:]) != sum {
			t.Errorf("%d bytes with sum %x, %v; want %s", len(b), got, err, sum)
		}
		// Many requests over one connection.
		var c http.Client
		for range 50 {
			res, err := c.Get("http://localhost:18380/none")
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusNotFound || !strings.HasPrefix(res.Header.Get("Server"), "nginx") {
				t.Fatalf("%s by %q", res.Status, res.Header.Get("Server"))
			}
		}
		c.CloseIdleConnections()
	})
	t.Run("PostgreSQL", testPostgres)
	t.Run("Redis", testRedis)
	t.Run("ssh", func(t *testing.T) { testSSH(t, h, key) })
	t.Run("keys", func(t *testing.T) { testOwnKeys(t, h) })
}

// ownKeys prints a distro's identifiers, and checks that its keys and certificates fit each
// other.
const ownKeys = `cd /etc/ssh; for k in ssh_host_*_key; do ssh-keygen -y -f $k | cut -d' ' -f1,2 | cmp - <(cut -d' ' -f1,2 $k.pub); done >&2
key=/etc/ssl/private/ssl-cert-snakeoil.key cert=/etc/ssl/certs/ssl-cert-snakeoil.pem
cmp <(openssl pkey -in $key -pubout) <(openssl x509 -in $cert -noout -pubkey) >&2
openssl verify -CApath /etc/ssl/certs $cert >/dev/null
openssl x509 -in $cert -noout -subject | tr -d ' '
stat -c '%a %U:%G' $key
su postgres -c "cat $key" | sha256sum
sha256sum </etc/machine-id
cat ssh_host_*_key | sha256sum
`

// testOwnKeys compares a distro with a copy of it: the copy has none of the first one's keys.
// Those are not from the image either, which has none (TestDebianOfAnyHost). The copy starts
// without systemd, which would start all its servers.
func testOwnKeys(t *testing.T, h *host) {
	h.sh(t, "services", "printf '[boot]\\nsystemd=false\\n' >/etc/wsl.conf")
	h.ok(t, "clone", "services", "services2")
	defer h.run("unregister", "--yes", "services2")
	seen := map[string]string{}
	for _, name := range []string{"services", "services2"} {
		lines := strings.Split(h.sh(t, name, "bash -e <<'END'\n"+ownKeys+"END"), "\n")
		if len(lines) != 5 || lines[0] != "subject=CN="+name || lines[1] != "640 root:ssl-cert" {
			t.Errorf("%s: got %q", name, lines)
			continue
		}
		for _, sum := range lines[2:] {
			if seen[sum] != "" {
				t.Errorf("%s and %s have a key or machine id in common", name, seen[sum])
			}
			seen[sum] = name
		}
	}
}

// tool runs a program on the host, which must succeed, and returns its output.
func tool(t *testing.T, stdin io.Reader, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%v: './task setup' installs it", err)
	}
	cmd := exec.CommandContext(t.Context(), name, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	cmd.Env = append(os.Environ(), "PGPASSWORD=secret", "PGCONNECT_TIMEOUT=30")
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v\n%s\n%s", name, err, out.String(), errOut.String())
	}
	return out.String()
}

// testPostgres copies a table there and back.
func testPostgres(t *testing.T) {
	var table strings.Builder
	for i := range 50_000 {
		fmt.Fprintf(&table, "%d\trow %d\n", i, i*i)
	}
	psql := func(stdin, host, command string) string {
		return tool(t, strings.NewReader(stdin), "psql", "-X", "-q", "-At", "-h", host, "-p", "18432", "-U", "joe", "-v", "ON_ERROR_STOP=1", "-c", command)
	}
	psql("", "localhost", "create table t (n int primary key, words text)")
	psql(table.String(), "127.0.0.1", "copy t from stdin")
	if got := psql("", "::1", "copy (select * from t order by n) to stdout"); got != table.String() {
		t.Errorf("%d bytes came back of %d", len(got), table.Len())
	}
}

// testRedis sends many commands before it reads the first answer.
func testRedis(t *testing.T) {
	c, err := net.Dial("tcp", "localhost:18379")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	const n = 5000
	var ask, want bytes.Buffer
	for i := range n {
		fmt.Fprintf(&ask, "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
		fmt.Fprintf(&want, ":%d\r\n", i+1)
	}
	go c.Write(ask.Bytes())
	got := make([]byte, want.Len())
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%v after %q…", err, got[:min(len(got), 40)])
	}
}

// testSSH connects from the host to the distro's sshd, and from the distro to the host's
// loopback, where the same sshd answers.
func testSSH(t *testing.T, h *host, key string) {
	file := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -o ConnectTimeout=60 -p 18322"
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	want := fmt.Sprintf("%x  -", sha256.Sum256(data))
	args := append(strings.Fields(options), "-F", "none", "-i", file, "root@localhost", "sha256sum; hostname")
	if got := tool(t, bytes.NewReader(data), "ssh", args...); got != want+"\nservices\n" {
		t.Errorf("from the host: %s", got)
	}
	got := h.sh(t, "services", "head -c 8388608 /dev/zero | ssh "+options+" root@host.lsub.internal 'wc -c; echo ${SSH_CLIENT%% *}'")
	if got != "8388608\n127.0.0.1" {
		t.Errorf("from the distro: %s", got)
	}
}
