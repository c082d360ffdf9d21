package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"golang.org/x/term"

	"github.com/lsub/lsub/printable"
)

// soon is how long work may take before a status line tells of it.
const soon = 300 * time.Millisecond

// statusLine is a line on a terminal that says what is being done, and goes
// away when it is done. Where stderr is no terminal, it is silent.
type statusLine struct {
	mu    sync.Mutex
	w     io.Writer // nil where it is silent
	shown bool
	raw   bool        // the terminal is in raw mode
	soon  *time.Timer // shows what [statusLine.setSoon] was given
}

func newStatusLine(f *os.File) *statusLine {
	if !term.IsTerminal(int(f.Fd())) {
		return &statusLine{}
	}
	return &statusLine{w: f}
}

func (s *statusLine) set(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	s.show(text)
}

// setSoon shows text in a moment, unless the line is set or cleared before.
// Where something is shown, it takes its place at once.
func (s *statusLine) setSoon(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	if s.shown {
		s.show(text)
		return
	}
	var t *time.Timer
	t = time.AfterFunc(soon, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.soon == t {
			s.show(text)
		}
	})
	s.soon = t
}

func (s *statusLine) show(text string) {
	if s.w != nil && !s.raw {
		fmt.Fprintf(s.w, "\r\x1b[K%s…", printable.Line(text))
		s.shown = true
	}
}

func (s *statusLine) forget() {
	if s.soon != nil {
		s.soon.Stop()
		s.soon = nil
	}
}

func (s *statusLine) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forget()
	if s.shown {
		fmt.Fprint(s.w, "\r\x1b[K")
		s.shown = false
	}
}

// setRaw tells the mode of the terminal.
func (s *statusLine) setRaw(raw bool) {
	s.clear()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raw = raw
}

// newline ends a line in whatever mode the terminal is.
func (s *statusLine) newline() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.raw {
		return "\r\n"
	}
	return "\n"
}

// table prints rows, the first of which are the headings.
func table(w io.Writer, rows [][]string) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		for i := range row {
			row[i] = printable.Line(row[i])
		}
		fmt.Fprintln(t, strings.Join(row, "\t"))
	}
	return t.Flush()
}

// printJSON prints v as docs/cli.md describes it.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printJSONLine prints v as one line.
func printJSONLine(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// size prints bytes for people.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for ; f >= 1024; i++ {
		f /= 1024
	}
	return fmt.Sprintf("%.1f %ciB", f, units[i])
}
