package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// dns measures how long a name takes in a distro, beside the same query to the
// same server on the host. The server is ours and answers at once, that there
// is no such name; so what is measured is the way.
func (b *bench) dns() error {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer server.Close()
	go answerAll(server)
	h, err := b.newHome("dns")
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "dns", "profiles", "default")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	profile := fmt.Sprintf("network: {dns: '%s'}\n", server.LocalAddr())
	if err := os.WriteFile(filepath.Join(dir, "profile.yaml"), []byte(profile), 0o600); err != nil {
		return err
	}
	if _, err := h.lsub("install", "debian?include=bind9-dnsutils", "--name", "debian"); err != nil {
		return err
	}
	n := b.times(300, 30)
	guest, err := h.queries(n)
	if err != nil {
		return err
	}
	host, err := hostQueries(server.LocalAddr().String(), n)
	if err != nil {
		return err
	}
	f := b.report.figure("dns: a query in a distro, as dig sees it", "ms", guest).beside("the same query on the host", host)
	f.Aim = host.quantile(0.5) + 20
	f.AimP95 = host.quantile(0.95) + 20
	return h.shutdown()
}

// queries has dig ask for names that nobody has asked for, one after the other.
func (h *home) queries(n int) (samples, error) {
	const practice = 10
	script := fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo "n$i.test.example"; i=$((i+1)); done > /tmp/names
exec dig -u -f /tmp/names +noall +stats`, practice+n)
	out, err := h.output("exec", "debian", "--", "sh", "-ec", script)
	if err != nil {
		return nil, err
	}
	var took samples
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, "Query time: ")
		if !ok {
			continue
		}
		usec, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " usec"))
		if err != nil {
			return nil, fmt.Errorf("dig says %q", line)
		}
		took.add(time.Duration(usec) * time.Microsecond)
	}
	if len(took) != practice+n {
		return nil, fmt.Errorf("dig has %d answers to %d queries", len(took), practice+n)
	}
	return took[practice:], nil
}

// hostQueries asks the server on the host, each time from a new socket, as
// programs do.
func hostQueries(server string, n int) (samples, error) {
	var took samples
	for i := range n {
		start := time.Now()
		conn, err := net.Dial("udp", server)
		if err != nil {
			return nil, err
		}
		conn.SetDeadline(start.Add(10 * time.Second))
		_, err = conn.Write(dnsQuery(uint16(i), fmt.Sprintf("n%d", i), "test", "example"))
		if err == nil {
			_, err = conn.Read(make([]byte, 512))
		}
		conn.Close()
		if err != nil {
			return nil, err
		}
		took.add(time.Since(start))
	}
	return took, nil
}

// dnsQuery asks for a name's IPv4 address.
func dnsQuery(id uint16, labels ...string) []byte {
	q := binary.BigEndian.AppendUint16(nil, id)
	q = append(q, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0)
	for _, l := range labels {
		q = append(append(q, byte(len(l))), l...)
	}
	return append(q, 0, 0, 1, 0, 1)
}

// answerAll answers every query with there being no such name, until the server is closed.
func answerAll(server net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := server.ReadFrom(buf)
		if err != nil {
			return
		}
		if n >= 12 {
			buf[2], buf[3] = buf[2]|0x80, 0x83
			server.WriteTo(buf[:n], from)
		}
	}
}
