package distro

import (
	"io"
	"sync"
)

// keyboard lends one input to several sessions, one after the other. What is
// typed goes to the session that has it then: a Read of the input cannot be
// interrupted, so a session's own would swallow the first keys of the next.
type keyboard struct {
	r     io.Reader
	typed chan typed
	start sync.Once

	reading sync.Mutex // held by the Read that is under way
	rest    []byte     // was typed and not yet read; under reading
	err     error      // the input's end; under reading
}

// typed is what one Read of the input gave.
type typed struct {
	b   []byte
	err error
}

func newKeyboard(r io.Reader) *keyboard { return &keyboard{r: r, typed: make(chan typed)} }

// lend returns the input, which ends when it is given back. It must be given
// back before it is lent again.
func (k *keyboard) lend() (r io.Reader, giveBack func()) {
	k.start.Do(func() { go k.pump() })
	l := &lent{k, make(chan struct{})}
	return l, func() {
		close(l.back)
		k.reading.Lock() // when its Read has ended
		defer k.reading.Unlock()
	}
}

// pump reads the input to its end. It outlives the sessions, as the process's
// stdin does.
func (k *keyboard) pump() {
	for {
		b := make([]byte, 4096)
		n, err := k.r.Read(b)
		k.typed <- typed{b[:n], err}
		if err != nil {
			return
		}
	}
}

type lent struct {
	k    *keyboard
	back chan struct{} // closed when it was given back
}

func (l *lent) Read(p []byte) (int, error) {
	k := l.k
	k.reading.Lock()
	defer k.reading.Unlock()
	if len(k.rest) == 0 && k.err == nil {
		select {
		case <-l.back:
		case t := <-k.typed:
			k.rest, k.err = t.b, t.err
		}
	}
	select {
	case <-l.back: // what came just now is for the next one
		return 0, io.EOF
	default:
	}
	n := copy(p, k.rest)
	if k.rest = k.rest[n:]; n == 0 {
		return 0, k.err
	}
	return n, nil
}
