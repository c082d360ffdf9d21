// Package guesttest is a guest for tests: it speaks the whole protocol of
// package guest, keeps its distros in memory and on the data disk's first
// bytes, and "runs" a handful of commands that are Go functions. With
// hvtest.Fake it makes a VM that needs no hypervisor, no root and no network:
//
//	fake := &hvtest.Fake{}
//	fake.Guest = func(g *hvtest.Guest) error {
//		return guesttest.Run(g, guesttest.Options{Version: "1.0", Disk: dataDisk, Console: g.Console()})
//	}
//
// Its commands are those of a shell as far as they go (echo, cat, env, pwd,
// id, true, false, exit, stty, sh -c, kill), and some that make trouble; see
// commands.go.
package guesttest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
)

// Host is the VM that the guest runs in; *hvtest.Guest is one.
type Host interface {
	Context() context.Context // ends when the power is cut
	Listen(port uint32) (net.Listener, error)
	Dial(port uint32) (net.Conn, error)
	AwaitHost(port uint32) error // blocks until the host listens
}

// Options say what kind of guest it is. The zero value but for Version works.
type Options struct {
	Version string    // of lsub
	Disk    string    // file that keeps the distros from one VM to the next; "" for none
	Console io.Writer // nil discards

	HelloError string      // why the guest cannot serve
	MaxImage   int64       // an image of more bytes finds no space; 0 for no limit
	Stubborn   bool        // refuse to power off
	Pause      func(error) // halts the VM for a reason, and lets it go on with nil

	Late  time.Duration            // how late its clock is
	Moved func(late time.Duration) // is told how late its clock is once that was moved; nil: nobody

	// Lie returns what answers in the place of the guest that it is given; nil: nobody does.
	Lie func(guestv1connect.GuestHandler) guestv1connect.GuestHandler
}

// Guest is a guest that runs.
type Guest struct {
	Options
	disk    *disk
	ports   ports
	late    atomic.Int64 // how late its clock is, ns
	off     chan error   // gets why the VM ends: nil for a power-off
	streams sync.WaitGroup
	shares  shares
}

// Run is the life of a guest. It returns nil after a power-off, and an error
// when it "dies".
func Run(h Host, o Options) error {
	if o.Console == nil {
		o.Console = io.Discard
	}
	g := &Guest{Options: o, off: make(chan error, 8)}
	g.late.Store(int64(o.Late))
	fmt.Fprintln(o.Console, "[    0.000000] Linux version 0.0-fake")
	if err := g.hello(h); err != nil || o.HelloError != "" {
		fmt.Fprintln(o.Console, "[    0.100000] lsubinit:", o.HelloError)
		<-h.Context().Done()
		return nil
	}
	var err error
	if g.disk, err = openDisk(o.Disk); err != nil {
		return err
	}
	control, err := h.Listen(guest.ControlPort)
	if err != nil {
		return err
	}
	streams, err := h.Listen(guest.StreamPort)
	if err != nil {
		return err
	}
	forwards, err := h.Listen(guest.ForwardPort)
	if err != nil {
		return err
	}
	handler := guestv1connect.GuestHandler(g)
	if o.Lie != nil {
		handler = o.Lie(g)
	}
	mux := http.NewServeMux()
	mux.Handle(guestv1connect.NewGuestHandler(handler, guest.ServerOptions()))
	server := &http.Server{Handler: mux}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(control) })
	serving.Go(func() { g.acceptStreams(streams, g.serveStream) })
	serving.Go(func() { g.acceptStreams(forwards, g.serveForward) })
	if err := g.ready(h); err != nil {
		g.off <- err
	}
	fmt.Fprintln(o.Console, "[    0.200000] lsubinit: serving")

	select {
	case err = <-g.off:
		last, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		server.Shutdown(last) // what is asked now is still answered
	case <-h.Context().Done():
		err = nil
	}
	server.Close()
	streams.Close()
	forwards.Close()
	serving.Wait()
	return err
}

// hello tells the host at once where the guest cannot serve.
func (g *Guest) hello(h Host) error {
	if g.HelloError == "" {
		return nil
	}
	return g.say(h, &guestv1.Hello{Version: g.Version, Kernel: "0.0-fake", Error: g.HelloError})
}

// ready tells the host that the guest serves.
func (g *Guest) ready(h Host) error {
	return g.say(h, &guestv1.Hello{
		Version: g.Version, Kernel: "0.0-fake",
		Boot: []*guestv1.BootStep{{Name: "kernel", DurationNs: 1e6}, {Name: "agent", StartNs: 1e6, DurationNs: 1e6}},
	})
}

func (g *Guest) say(h Host, m *guestv1.Hello) error {
	if err := h.AwaitHost(guest.HelloPort); err != nil {
		return err
	}
	c, err := h.Dial(guest.HelloPort)
	if err != nil {
		return err
	}
	defer c.Close()
	return guest.NewWriter(c).SendMessage(guest.FrameHello, m)
}

func (g *Guest) acceptStreams(l net.Listener, serve func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			break
		}
		g.streams.Go(func() {
			defer c.Close()
			serve(c)
		})
	}
	// The end of the VM resets the streams, and with them ends what they run.
}
