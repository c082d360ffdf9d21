//go:build unix

package main

import (
	"io"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// scriptFreePort sets variables to ports that nobody has on 127.0.0.1.
func scriptFreePort(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		ts.Check(err)
		defer l.Close() // after the last one, so that they differ
		_, port, err := net.SplitHostPort(l.Addr().String())
		ts.Check(err)
		ts.Setenv(name, port)
	}
}

// eventuallyFor bounds how long a script waits for what is to come.
const eventuallyFor = 20 * time.Second

// scriptEventually runs a command until its stdout matches: eventually REGEX COMMAND…
func scriptEventually(ts *testscript.TestScript, neg bool, args []string) {
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for end := time.Now().Add(eventuallyFor); ; time.Sleep(20 * time.Millisecond) {
		ts.Check(ts.Exec(args[1], args[2:]...))
		out := ts.ReadFile("stdout")
		if re.MatchString(out) != neg {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("this stays as it is, and should (not: %v) match %s:\n%s", neg, args[0], out)
		}
	}
}

// scriptTalk sends words to an address, ends its side, and wants the same back:
// talk ADDRESS WORDS. With "!", nobody must be there.
func scriptTalk(ts *testscript.TestScript, neg bool, args []string) {
	c, err := net.DialTimeout("tcp", args[0], 5*time.Second)
	if neg {
		if err == nil {
			c.Close()
			ts.Fatalf("somebody listens on %s", args[0])
		}
		return
	}
	ts.Check(err)
	defer c.Close()
	c.SetDeadline(time.Now().Add(eventuallyFor))
	_, err = io.WriteString(c, args[1])
	ts.Check(err)
	ts.Check(c.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(c)
	ts.Check(err)
	if string(got) != args[1] {
		ts.Fatalf("%q came back in place of %q", got, args[1])
	}
}

// scriptOccupy listens on an address as another program of the host, or with "!"
// no longer: occupy [ADDRESS:]PORT. The address is 127.0.0.1 without one.
func scriptOccupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		l, ok := occupied.LoadAndDelete(args[0])
		if !ok {
			ts.Fatalf("port %s is not occupied", args[0])
		}
		ts.Check(l.(net.Listener).Close())
		return
	}
	at := args[0]
	if !strings.Contains(at, ":") {
		at = "127.0.0.1:" + at
	}
	l, err := net.Listen("tcp", at)
	ts.Check(err)
	occupied.Store(args[0], l)
	ts.Defer(func() { l.Close() })
}

var occupied sync.Map // port to net.Listener
