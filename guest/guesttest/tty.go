package guesttest

import (
	"bytes"
	"fmt"
	"io"

	"github.com/lsub/lsub/guest"
)

// openTerminal gives a command the terminal beside its pipes.
func (p *process) openTerminal() {
	p.screen = screenWriter{frameWriter{p.s.w, guest.FrameScreen}}
	if !p.pipes.Stdin {
		p.stdin = keysReader{p}
	}
	if !p.pipes.Stdout {
		p.stdout = p.screen
	}
	if !p.pipes.Stderr {
		p.stderr = p.screen
	}
}

// screenWriter is the terminal's side of what is written to it.
type screenWriter struct{ w io.Writer }

func (s screenWriter) Write(p []byte) (int, error) {
	_, err := s.w.Write(bytes.ReplaceAll(p, []byte("\n"), []byte("\r\n")))
	return len(p), err
}

// keysReader is the terminal's input. It asks for keys when somebody begins to read.
type keysReader struct{ p *process }

func (k keysReader) Read(b []byte) (int, error) {
	k.p.s.w.Send(guest.FrameAsk, []byte{byte(guest.AskKeys)})
	n, err := k.p.s.keys.Read(b)
	for i, c := range b[:n] {
		switch c {
		case '\r':
			b[i] = '\n'
		case 4:
			return i, io.EOF
		}
	}
	return n, err
}

// openTTY is what opens /dev/tty.
func (p *process) openTTY() bool {
	if p.pipes == nil {
		fmt.Fprintln(p.stderr, "/dev/tty: No such device or address")
		return false
	}
	return true
}

func ask(p *process) int {
	if !p.openTTY() {
		return 1
	}
	fmt.Fprint(p.screen, p.argv[1])
	var line []byte
	for b := make([]byte, 1); ; {
		n, err := keysReader{p}.Read(b)
		if n == 0 || err != nil {
			fmt.Fprintln(p.stdout, "no answer:", err)
			return 1
		}
		if b[0] == '\n' {
			break
		}
		line = append(line, b[0])
	}
	p.s.w.Send(guest.FrameAsk, []byte{byte(guest.AskNothing)})
	fmt.Fprintf(p.stdout, "answer %q\n", line)
	return 0
}

func ttysize(p *process) int {
	if !p.openTTY() {
		return 1
	}
	show := func() {
		p.s.mu.Lock()
		defer p.s.mu.Unlock()
		fmt.Fprintln(p.screen, "size", p.s.rows, p.s.cols)
	}
	show()
	<-p.s.resized
	show()
	return 0
}
