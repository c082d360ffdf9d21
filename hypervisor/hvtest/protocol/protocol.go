// Package protocol is what a guest of the conformance tests speaks: a few
// services on vsock ports, small enough that the same code serves the fake VM
// (a goroutine of the test) and a real one (package main in ../testguest).
//
//	port 7  (guest)  echo: sends back what it gets; closes its side at the end
//	port 8  (host)   ready: the guest dials it once its services listen, and echoes
//	port 9  (guest)  control: one command line, one answer line ("ok …" or "error …")
//	port 10 (guest)  sink: reads to the end, then answers with the number of bytes
//	port 11 (guest)  source: "N\n" asks for N bytes of zeros
//
// The control command "poweroff" ends the machine; it has no answer. "frames PORT" has the
// guest open a stream to the host's port and echo the frames ([virtionet.Stream]) that come
// there: see [EchoFrame]. Every other command is for [Machine.Command]. The conformance suite
// wants these:
//
//	disks        "SERIAL:SIZE:ro|rw" of each disk, with blanks between
//	nic          "MAC MTU" of the network card
//	frames       echo the frames that come through the network card
//	balloon N    answer once the balloon holds N bytes of memory
//	boot         an identifier of this boot
//	read TAG F   the content of a small file in a share
package protocol

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
)

// The ports of the services.
const (
	EchoPort    = 7
	ReadyPort   = 8
	ControlPort = 9
	SinkPort    = 10
	SourcePort  = 11
)

// UpLine is what the guest writes to its console when its services listen.
const UpLine = "hvtest: the guest is up"

// Machine is the virtual machine as seen from inside.
type Machine interface {
	// Listen accepts the streams that the host opens to the port.
	Listen(port uint32) (net.Listener, error)
	// DialHost opens a stream to the host's port. While nobody listens there it
	// waits, until the machine ends.
	DialHost(port uint32) (net.Conn, error)
	// Console receives the guest's messages.
	Console() io.Writer
	// Command runs a line of the control service and returns its answer.
	Command(line string) (string, error)
}

// closeWriter is a connection that can be half closed.
type closeWriter interface{ CloseWrite() error }

// Serve serves the test protocol. It returns nil once it is asked to power
// off, and an error where it cannot serve.
func Serve(m Machine) error {
	off := make(chan struct{})
	var once sync.Once
	control := func(c net.Conn) {
		if serveControl(m, c) {
			once.Do(func() { close(off) })
		}
	}
	services := []struct {
		port  uint32
		serve func(net.Conn)
	}{{EchoPort, echo}, {SinkPort, sink}, {SourcePort, source}, {ControlPort, control}}

	var listeners []net.Listener
	for _, s := range services {
		l, err := m.Listen(s.port)
		if err != nil {
			return fmt.Errorf("port %d: %w", s.port, err)
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	fmt.Fprintln(m.Console(), UpLine)

	failed := make(chan error, len(services))
	for i, s := range services {
		go func() { failed <- accept(listeners[i], s.serve) }()
	}
	go func() {
		if c, err := m.DialHost(ReadyPort); err == nil {
			echo(c)
		}
	}()
	select {
	case <-off:
		return nil
	case err := <-failed:
		return err
	}
}

// accept serves each connection in a goroutine of its own. The goroutines end
// with the machine, which cuts every connection.
func accept(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

func echo(c net.Conn) {
	if _, err := io.Copy(c, c); err != nil {
		return
	}
	if h, ok := c.(closeWriter); ok {
		h.CloseWrite()
	}
}

func sink(c net.Conn) {
	n, err := io.Copy(io.Discard, c)
	if err != nil {
		return
	}
	fmt.Fprintln(c, n)
}

func source(c net.Conn) {
	var n int64
	if _, err := fmt.Fscanln(c, &n); err != nil {
		return
	}
	zeros := make([]byte, 256<<10)
	for n > 0 {
		k, err := c.Write(zeros[:min(n, int64(len(zeros)))])
		if err != nil {
			return
		}
		n -= int64(k)
	}
}

// serveControl answers one line; it reports whether that line asked for the end.
func serveControl(m Machine, c net.Conn) (off bool) {
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	line = strings.TrimSpace(line)
	if line == "poweroff" {
		return true
	}
	answer, err := "", error(nil)
	if port, ok := strings.CutPrefix(line, "frames "); ok {
		err = dialFrames(m, port)
	} else {
		answer, err = m.Command(line)
	}
	if err != nil {
		fmt.Fprintf(c, "error %v\n", err)
		return false
	}
	fmt.Fprintf(c, "ok %s\n", answer)
	return false
}
