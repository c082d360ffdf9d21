package kvm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}`

// fakeQEMU answers commands on conn: answer returns the lines to send. It ends with the
// connection.
func fakeQEMU(t *testing.T, greeting string, answer func(command string) []string) net.Conn {
	ours, theirs := net.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer theirs.Close()
		if greeting == "" {
			bufio.NewReader(theirs).ReadByte() // until the other end is closed
			return
		}
		fmt.Fprintf(theirs, "%s\r\n", greeting)
		in := bufio.NewScanner(theirs)
		for in.Scan() {
			var c qmp.Command
			if err := json.Unmarshal(in.Bytes(), &c); err != nil {
				t.Errorf("the command %q: %v", in.Bytes(), err)
			}
			lines := answer(c.Execute)
			if lines == nil {
				return
			}
			fmt.Fprint(theirs, strings.Join(lines, "\r\n"), "\r\n")
		}
	})
	t.Cleanup(wg.Wait)
	return ours
}

// ok is a successful answer.
var ok = []string{`{"return": {}}`}

func event(name string) string {
	return `{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "` + name + `", "data": {"n": 1}}`
}

func open(t *testing.T, conn net.Conn, onEvent func(qmp.Event)) *monitor {
	t.Helper()
	if onEvent == nil {
		onEvent = func(qmp.Event) {}
	}
	m, err := openMonitor(t.Context(), conn, t.TempDir(), onEvent, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.close)
	return m
}

// TestMonitorEvents has events before, with and after each answer. go-qemu alone would lose
// the first ones, block, or return corrupt answers.
func TestMonitorEvents(t *testing.T) {
	var events []string
	m := open(t, fakeQEMU(t, greeting, func(c string) []string {
		return []string{event("BEFORE-" + c), `{"return": {"command": "` + c + `"}}`, event("AFTER-" + c), event("MORE-" + c)}
	}), func(e qmp.Event) { events = append(events, e.Event) })
	if want := (version{7, 2, 22}); m.qemu != want {
		t.Errorf("QEMU is %v, want %v", m.qemu, want)
	}
	want := []string{"BEFORE-qmp_capabilities", "AFTER-qmp_capabilities", "MORE-qmp_capabilities"}
	for i := range 300 {
		name := fmt.Sprint("command-", i)
		want = append(want, "BEFORE-"+name, "AFTER-"+name, "MORE-"+name)
		var got struct{ Command string }
		if err := m.run(t.Context(), name, &got); err != nil || got.Command != name {
			t.Fatalf("%s was answered %q, %v", name, got.Command, err)
		}
	}
	m.close()
	// The connection's end may have cut off the last two.
	if len(events) < len(want)-2 || strings.Join(events, " ") != strings.Join(want[:len(events)], " ") {
		t.Errorf("got %d events of %d, or others", len(events), len(want))
	}
}

func TestMonitorFails(t *testing.T) {
	m := open(t, fakeQEMU(t, greeting, func(c string) []string {
		switch c {
		case "bad":
			return []string{`{"error": {"class": "GenericError", "desc": "no such thing"}}`}
		case "long":
			return []string{`{"return": "` + strings.Repeat("x", 100<<10) + `"}`}
		case "junk":
			return []string{"junk", "", "{}", `{"return": 1}`}
		case "die":
			return nil
		}
		return ok
	}), nil)
	for _, c := range []struct{ command, want string }{
		{"bad", "no such thing"},
		{"long", "too long"},
		{"junk", ""},
		{"fine", ""},
		{"die", errMonitorGone.Error()},
		{"fine", errMonitorGone.Error()},
	} {
		err := m.run(t.Context(), c.command, nil)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.command, err, c.want)
		}
	}
}

// TestMonitorSlow abandons a command. Its late answer is not taken for that of the next
// command.
func TestMonitorSlow(t *testing.T) {
	release := make(chan struct{})
	m := open(t, fakeQEMU(t, greeting, func(c string) []string {
		if c == "slow" {
			<-release
		}
		return []string{`{"return": "` + c + `"}`}
	}), nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	for range 2 { // one in progress, one that waits for it
		if err := m.run(ctx, "slow", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("slow: %v, want %v", err, context.DeadlineExceeded)
		}
	}
	close(release)
	var got string
	if err := m.run(t.Context(), "next", &got); err != nil || got != "next" {
		t.Errorf("next: %q, %v", got, err)
	}
}

func TestMonitorGreeting(t *testing.T) {
	short, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	for _, c := range []struct {
		name, greeting string
		answer         []string
		want           error // nil for any
	}{
		{"none", "", nil, context.DeadlineExceeded},
		{"hangs up", greeting, nil, nil},
		{"refuses", greeting, []string{`{"error": {"class": "X", "desc": "no"}}`}, nil},
		{"an answer instead", `{"return": {}}`, ok, nil},
		{"two", greeting, []string{greeting}, nil},
		{"another client's turn", "", nil, context.DeadlineExceeded},
	} {
		conn := fakeQEMU(t, c.greeting, func(string) []string { return c.answer })
		m, err := openMonitor(short, conn, t.TempDir(), func(qmp.Event) {}, slog.New(slog.DiscardHandler))
		if err == nil {
			m.close()
			t.Errorf("%s: the monitor is open", c.name)
		}
		if c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// FuzzRelay has QEMU send arbitrary bytes: the monitor may fail, but neither panic nor hang.
func FuzzRelay(f *testing.F) {
	f.Add([]byte(greeting + "\n" + ok[0] + "\n" + event("STOP") + "\n" + ok[0] + "\n"))
	f.Add([]byte(ok[0] + "\n" + ok[0] + "\n" + ok[0] + "\n"))
	f.Add([]byte(greeting + "\n" + greeting + "\n"))
	f.Add([]byte("{\"error\":null}\n{\"return\":null}\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		ours, theirs := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer theirs.Close()
			theirs.Write(said)
		})
		wg.Go(func() { // so that commands can be sent
			b := make([]byte, 4096)
			for {
				if _, err := theirs.Read(b); err != nil {
					return
				}
			}
		})
		m, err := openMonitor(t.Context(), ours, t.TempDir(), func(qmp.Event) {}, slog.New(slog.DiscardHandler))
		if err == nil {
			m.run(t.Context(), "quit", nil)
			m.close()
		}
		wg.Wait()
	})
}
