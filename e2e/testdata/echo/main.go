// Echo sends back what comes to a port, for tests that run it in a distro without
// tools, until its input ends:
//
//	echo tcp|udp ADDRESS
//
// Connections are served as echoServer of the tests has it.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"syscall"
)

func main() {
	network, at := os.Args[1], os.Args[2]
	if network == "udp" {
		conn, err := net.ListenPacket(network, at)
		if err != nil {
			log.Fatal(err)
		}
		go packets(conn)
	} else {
		l, err := net.Listen(network, at)
		if err != nil {
			log.Fatal(err)
		}
		go connections(l)
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func packets(conn net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		conn.WriteTo(buf[:n], from)
	}
}

func connections(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer c.Close()
			var number syscall.Errno
			if err := serve(c.(*net.TCPConn)); errors.As(err, &number) {
				fmt.Println("failed", int(number))
			}
		}()
	}
}

func serve(c *net.TCPConn) error {
	buf := make([]byte, 1<<16)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	switch buf[0] {
	case 'R':
		return c.SetLinger(0)
	case 'P':
		from := c.RemoteAddr().(*net.TCPAddr)
		_, err := fmt.Fprint(c, from.IP, from.Port)
		return err
	case 'H':
		if _, err := io.Copy(io.Discard, c); err != nil {
			return err
		}
		_, err := io.WriteString(c, "after the end")
		return err
	}
	for err == nil {
		if _, err = c.Write(buf[:n]); err == nil {
			n, err = c.Read(buf)
		}
	}
	return err
}
