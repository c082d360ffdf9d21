package netstack

import (
	"io"
	"net"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// TestNeverReads has a guest that opens many connections to an endless sender and reads from
// none.
func TestNeverReads(t *testing.T) { bothWays(t, testNeverReads) }

func testNeverReads(t *testing.T, start starter) {
	n, g := start(t, Config{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for block := make([]byte, 64<<10); ; {
					if _, err := c.Write(block); err != nil {
						return
					}
				}
			}()
		}
	}()
	port := l.Addr().(*net.TCPAddr).Port
	var conns []*gonet.TCPConn
	for range 100 {
		c, err := g.dialTCP(n.Host(), port)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	// Others are served meanwhile.
	c, err := g.dialTCP(n.Host(), echo(t, "tcp", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	c.Write([]byte("hello"))
	c.CloseWrite()
	if b, err := io.ReadAll(c); string(b) != "hello" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	for _, c := range conns {
		c.Close()
	}
}

// TestRoom bounds the total buffers of the maximum number of connections.
func TestRoom(t *testing.T) {
	total := 0
	for conns := 1; conns <= maxTCP; conns++ {
		socket, buffer := room(conns)
		total += 2 * (socket + buffer)
		if conns == 1 && (socket < 1<<20 || buffer < 128<<10) {
			t.Errorf("a single connection has no more than %d and %d bytes", socket, buffer)
		}
	}
	if total > 768<<20 {
		t.Errorf("they hold %d MiB", total>>20)
	}
}
