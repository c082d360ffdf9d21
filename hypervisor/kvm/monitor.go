package kvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
)

// commandTimeout bounds a QMP command if the caller's context does not. Except at its start,
// QEMU answers in well under a millisecond.
const commandTimeout = 10 * time.Second

// greetTimeout bounds QEMU's own start, which takes 0.1 s on an idle machine, and took 15 s on
// a busy one that was a VM itself.
const greetTimeout = time.Minute

// errMonitorGone is the error of commands after QEMU has hung up.
var errMonitorGone = errors.New("QEMU has closed its monitor")

// errNoSocket is a failure on this side. It says nothing about QEMU.
var errNoSocket = errors.New("no socket for QEMU's monitor")

// monitor speaks QMP with one QEMU. It wraps go-qemu's monitor, which has neither contexts
// nor deadlines. It is safe for concurrent use.
type monitor struct {
	qmp    *qmp.SocketMonitor
	filter *eventFilter
	slot   chan struct{} // holds a token while no command is in progress
	qemu   version

	wg     sync.WaitGroup // Connect and Run
	mu     sync.Mutex
	closed bool // nothing may be added to wg
}

// spawn runs f in a goroutine. It returns false once the monitor is closed.
func (m *monitor) spawn(f func()) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return false
	}
	m.wg.Go(f)
	return true
}

// openMonitor greets the QEMU at the other end of conn. It owns conn, also on failure. dir is
// for a short-lived socket: go-qemu's monitor connects to a path. onEvent is called for each
// event, and may not block.
func openMonitor(ctx context.Context, conn net.Conn, dir string, onEvent func(qmp.Event), log *slog.Logger) (*monitor, error) {
	near, far, err := dialSelf(dir)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("%w: %w", errNoSocket, err)
	}
	m := &monitor{qmp: near, slot: make(chan struct{}, 1)}
	m.filter = startEventFilter(conn, far, onEvent, log)

	connected := make(chan error, 1)
	m.spawn(func() { connected <- near.Connect() })
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	select {
	case err = <-connected:
	case <-ctx.Done():
		err = context.Cause(ctx)
		m.filter.close() // which ends Connect
		<-connected
	}
	if err == nil {
		select {
		case m.qemu = <-m.filter.greeting: // the filter saw it before Connect did
		default:
			err = errors.New("it has sent something else")
		}
	}
	if err != nil {
		m.close()
		return nil, fmt.Errorf("QEMU's greeting: %w", err)
	}
	m.slot <- struct{}{}
	return m, nil
}

// dialSelf returns go-qemu's monitor and the other end of its connection.
func dialSelf(dir string) (*qmp.SocketMonitor, net.Conn, error) {
	path := filepath.Join(dir, fmt.Sprintf("qmp-%d.sock", os.Getpid()))
	os.Remove(path) // left by a killed process with the same number
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, nil, err
	}
	defer l.Close() // removes the path
	// The kernel connects before anybody accepts.
	mon, err := qmp.NewSocketMonitor("unix", path, commandTimeout)
	if err != nil {
		return nil, nil, err
	}
	conn, err := l.Accept()
	if err != nil {
		mon.Disconnect()
		return nil, nil, err
	}
	return mon, conn, nil
}

// run runs a command without arguments; see runWith.
func (m *monitor) run(ctx context.Context, command string, result any) error {
	return m.runWith(ctx, command, nil, result)
}

// runWith runs a command and decodes its answer into result, unless that is nil. If ctx ends
// first, or after commandTimeout, the command continues: the next command waits until QEMU
// has answered.
func (m *monitor) runWith(ctx context.Context, command string, args, result any) error {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	line, err := json.Marshal(qmp.Command{Execute: command, Args: args})
	if err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("qmp %s: %w", command, err) }
	select {
	case <-m.slot:
	case <-m.filter.ended:
		return fail(errMonitorGone)
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
	type answer struct {
		line []byte
		err  error
	}
	answered := make(chan answer, 1)
	running := m.spawn(func() {
		line, err := m.qmp.Run(append(line, '\n'))
		// A copy, because the line is in go-qemu's buffer. Nothing is written there until the
		// slot is free: the filter passes only answers to commands.
		answered <- answer{bytes.Clone(line), err}
		m.slot <- struct{}{}
	})
	if !running {
		return fail(errMonitorGone)
	}
	select {
	case a := <-answered:
		if a.err != nil {
			select {
			case <-m.filter.ended:
				a.err = errMonitorGone
			default:
			}
			return fail(a.err)
		}
		if result == nil {
			return nil
		}
		full := struct {
			Return any `json:"return"`
		}{result}
		if err := json.Unmarshal(a.line, &full); err != nil {
			return fail(err)
		}
		return nil
	case <-ctx.Done():
		return fail(context.Cause(ctx))
	}
}

// close hangs up and waits until all goroutines have ended. All events that QEMU has sent
// before are handled then.
func (m *monitor) close() {
	m.filter.close()
	m.wait()
}

// wait waits until QEMU has hung up and its last event was handled.
func (m *monitor) wait() {
	m.filter.wait()
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.wg.Wait()
	m.qmp.Disconnect()
}
