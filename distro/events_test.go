package distro

import (
	"fmt"
	"strings"
	"sync"
)

// heard are the notes and warnings that a test heard, a line each.
type heard struct {
	mu sync.Mutex
	b  strings.Builder
}

func (h *heard) Progress(Step)    {}
func (h *heard) Note(text string) { h.line("note", text) }
func (h *heard) Warn(text string) { h.line("warning", text) }

func (h *heard) line(kind, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	fmt.Fprintf(&h.b, "%s: %s\n", kind, text)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.b.String()
}

func (h *heard) Len() int { return len(h.String()) }
