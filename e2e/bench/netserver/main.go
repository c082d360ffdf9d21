// Netserver is what the benchmark of forwarded ports runs in the guest:
//
//	netserver serve PORT          sink, source, echo and control on PORT to PORT+3
//	netserver send ADDRESS BYTES  sends to a sink, and prints the seconds that it took
//
// The sink takes bytes until their end and answers with one. The source reads a
// count of 8 bytes, big endian, and sends as many. The control reads ports of 2
// bytes, and has an echo server on each until the next one comes.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		port, err := strconv.Atoi(os.Args[2])
		check(err)
		for i, f := range []func(net.Conn){sink, source, echo, control} {
			l, err := net.Listen("tcp4", fmt.Sprintf("0.0.0.0:%d", port+i))
			check(err)
			go serve(l, f)
		}
		fmt.Println("serving")
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if len(os.Args) == 4 && os.Args[1] == "send" {
		n, err := strconv.ParseInt(os.Args[3], 10, 64)
		check(err)
		check(send(os.Args[2], n))
		return
	}
	fmt.Fprintln(os.Stderr, "usage: netserver serve PORT | netserver send ADDRESS BYTES")
	os.Exit(2)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "netserver:", err)
		os.Exit(1)
	}
}

func serve(l net.Listener, f func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			f(c)
		}()
	}
}

const bufferSize = 256 << 10

// sink reads with a large buffer: io.Discard's is small.
func sink(c net.Conn) {
	b := make([]byte, bufferSize)
	for {
		if _, err := c.Read(b); err != nil {
			break
		}
	}
	c.Write([]byte{1})
}

func source(c net.Conn) {
	var n uint64
	if binary.Read(c, binary.BigEndian, &n) != nil {
		return
	}
	b := make([]byte, bufferSize)
	for n > 0 {
		m, err := c.Write(b[:min(n, bufferSize)])
		if err != nil {
			return
		}
		n -= uint64(m)
	}
}

func echo(c net.Conn) {
	b := make([]byte, 4<<10)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

func control(c net.Conn) {
	for {
		var port uint16
		if binary.Read(c, binary.BigEndian, &port) != nil {
			return
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return
		}
		defer l.Close()
		go serve(l, echo)
	}
}

func send(addr string, n int64) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	start := time.Now()
	b := make([]byte, bufferSize)
	for left := n; left > 0; {
		m, err := c.Write(b[:min(left, bufferSize)])
		if err != nil {
			return err
		}
		left -= int64(m)
	}
	c.(*net.TCPConn).CloseWrite()
	if _, err := c.Read(b); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Seconds())
	return nil
}
