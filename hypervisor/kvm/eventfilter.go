package kvm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"github.com/digitalocean/go-qemu/qmp"
)

const (
	// maxLine is the longest line that QEMU may send, in bytes.
	maxLine = 1 << 20
	// maxAnswer is the longest answer that go-qemu's monitor survives, in bytes: its scanner
	// stops for good at a line of 64 KiB.
	maxAnswer = 60 << 10
)

// eventFilter stands between QEMU's end of QMP and go-qemu's SocketMonitor. It removes the
// events from the stream, so that the monitor sees only one greeting and one answer for each
// command. The monitor has bugs otherwise: it loses an event that comes with its first
// answer, blocks while an event is not fetched, breaks at a long line, and returns answers in
// a buffer that the next line overwrites.
type eventFilter struct {
	qemu, mon net.Conn
	onEvent   func(qmp.Event)
	log       *slog.Logger

	greeting chan version // receives at most one
	wg       sync.WaitGroup
	ended    chan struct{} // closed before the connections are
	once     sync.Once
}

// startEventFilter runs until one of the connections ends, and closes both. onEvent is called
// in the order of the events, and may not block. The caller must call wait.
func startEventFilter(qemu, mon net.Conn, onEvent func(qmp.Event), log *slog.Logger) *eventFilter {
	f := &eventFilter{
		qemu: qemu, mon: mon, onEvent: onEvent, log: log,
		greeting: make(chan version, 1), ended: make(chan struct{}),
	}
	f.wg.Go(func() {
		// If QEMU ends with unread input, the connection is reset.
		err := f.fromQEMU()
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
			log.Warn("QEMU's monitor has failed", "err", err)
		}
		f.close()
	})
	f.wg.Go(func() {
		// The other direction reports the connection's error.
		io.Copy(qemu, mon)
		f.close()
	})
	return f
}

// close hangs up at both ends.
func (f *eventFilter) close() {
	f.once.Do(func() { close(f.ended) })
	f.qemu.Close()
	f.mon.Close()
}

func (f *eventFilter) wait() { f.wg.Wait() }

// fromQEMU carries lines from QEMU until it hangs up, which is not an error.
func (f *eventFilter) fromQEMU() error {
	lines := bufio.NewScanner(f.qemu)
	lines.Buffer(make([]byte, 4096), maxLine)
	for lines.Scan() {
		line := lines.Bytes()
		m, err := decodeMessage(line)
		if err != nil {
			f.log.Debug("QEMU's monitor sent what is no message", "err", err)
			continue
		}
		switch m.kind {
		case messageEvent:
			f.onEvent(m.event)
		case messageGreeting:
			select {
			case f.greeting <- m.version:
			default:
				return errors.New("a second greeting")
			}
			err = f.toMonitor(line)
		case messageAnswer:
			if len(line) > maxAnswer {
				line = fmt.Appendf(nil, `{"error":{"class":"GenericError","desc":"an answer of %d bytes is too long"}}`, len(line))
			}
			err = f.toMonitor(line)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

func (f *eventFilter) toMonitor(line []byte) error {
	// A copy: appending to the scanner's buffer would overwrite the next line.
	out := make([]byte, 0, len(line)+1)
	_, err := f.mon.Write(append(append(out, line...), '\n'))
	return err
}
