package provision

import (
	"bytes"
	"io"
	"sync"

	"github.com/lsub/lsub/printable"
)

// maxLine is where a line is cut that does not end.
const maxLine = 4 << 10

// lines makes lines of what streams have, and keeps the last ones.
type lines struct {
	mu      sync.Mutex
	tell    func(line string)
	last    []string
	streams []*stream
}

func newLines(tell func(string)) *lines { return &lines{tell: tell} }

// stream returns a writer. first, if not nil, gets its lines until it takes one, which is not told.
func (l *lines) stream(first func(string) bool) io.Writer {
	s := &stream{all: l, first: first}
	l.streams = append(l.streams, s)
	return s
}

// end tells of what has no newline at its end.
func (l *lines) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.streams {
		if len(s.rest) > 0 {
			s.line(s.rest)
			s.rest = nil
		}
	}
}

type stream struct {
	all   *lines
	first func(string) bool // nil once it has taken a line
	rest  []byte
}

func (s *stream) Write(p []byte) (int, error) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.rest = append(s.rest, p...)
	for {
		i := bytes.IndexByte(s.rest, '\n')
		if i < 0 && len(s.rest) < maxLine {
			return len(p), nil
		}
		if i < 0 || i > maxLine {
			s.line(s.rest[:maxLine])
			s.rest = s.rest[maxLine:]
			continue
		}
		s.line(s.rest[:i])
		s.rest = s.rest[i+1:]
	}
}

func (s *stream) line(b []byte) {
	// A carriage return draws the line anew: the last one counts.
	b = bytes.TrimRight(b, "\r")
	text := printable.Line(string(b[bytes.LastIndexByte(b, '\r')+1:]))
	if s.first != nil && s.first(text) {
		s.first = nil
		return
	}
	l := s.all
	l.last = append(l.last, text)
	l.last = l.last[max(0, len(l.last)-MaxLast):]
	l.tell(text)
}
