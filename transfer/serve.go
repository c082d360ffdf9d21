package transfer

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

// The commands of [Serve].
const (
	CommandSend    = "copy-send"    // [--resume] PATH…
	CommandReceive = "copy-receive" // PATH [NAME…]
)

// ServeOptions say what one side of a copy does, as another process: it reads the other side's
// stream from Stdin, writes its own to Stdout, and what [Reports] reads to Stderr.
type ServeOptions struct {
	Args   []string // a command and its arguments
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Path turns a path that the user gave into one that can be opened. A relative one, and
	// one that begins with "~/", is below the home folder.
	Path func(string) string
}

// report is a line of a process that [Serve] runs in.
type report struct {
	Note    string `json:"note,omitempty"`
	Error   string `json:"error,omitempty"`
	Full    bool   `json:"full,omitempty"` // the error is that the disk is full
	Skipped int    `json:"skipped,omitempty"`
	Done    bool   `json:"done,omitempty"` // the last line
}

// Serve does one side of a copy and returns the process's exit status.
func Serve(ctx context.Context, o ServeOptions) int {
	var mu sync.Mutex
	say := func(r report) {
		mu.Lock()
		defer mu.Unlock()
		writeLine(o.Stderr, r)
	}
	skipped, err := serve(ctx, o, func(text string) { say(report{Note: text}) })
	last := report{Skipped: skipped, Done: true}
	if err != nil {
		last.Error, last.Full = err.Error(), errors.Is(err, errDiskFull)
	}
	say(last)
	if err != nil {
		return 1
	}
	return 0
}

func serve(ctx context.Context, o ServeOptions, note func(string)) (int, error) {
	if len(o.Args) < 2 {
		return 0, errWire
	}
	switch args := o.Args[1:]; o.Args[0] {
	case CommandSend:
		so := SendOptions{Note: note}
		if args[0] == "--resume" {
			so.Resume, args = true, args[1:]
		}
		for _, a := range args {
			so.Sources = append(so.Sources, o.Path(a))
		}
		return Send(ctx, o.Stdout, o.Stdin, so)
	case CommandReceive:
		return Receive(ctx, o.Stdin, o.Stdout, ReceiveOptions{Dest: o.Path(args[0]), Names: append([]string(nil), args[1:]...), Note: note})
	}
	return 0, fmt.Errorf("%w: %q", errWire, o.Args[0])
}

// RemoteError is why the other side of a copy failed.
type RemoteError struct {
	Text string
	Full bool // its disk is full
}

func (e *RemoteError) Error() string { return e.Text }

// Reports reads what a process that [Serve] runs in writes to its stderr. It calls note with
// each line for people, and returns how many files were left out, and the error of the
// process. Other text there is, such as that of a program that crashed, is in the error.
func Reports(r io.Reader, note func(string)) (skipped int, err error) {
	in := bufio.NewReader(r)
	var other strings.Builder
	for {
		line, rerr := readLine(in)
		if rerr != nil {
			break
		}
		var rep report
		if json.Unmarshal(line, &rep) != nil {
			if other.Len() < 4<<10 {
				fmt.Fprintf(&other, "\n%s", line)
			}
			continue
		}
		switch {
		case rep.Error != "":
			return rep.Skipped, &RemoteError{rep.Error, rep.Full}
		case rep.Done:
			return rep.Skipped, nil
		case rep.Note != "":
			note(rep.Note)
		}
	}
	return 0, &RemoteError{Text: "the other side of the copy ended too early" + other.String()}
}

// IsDiskFull tells whether an error says that a disk of this system is full.
func IsDiskFull(err error) bool { return errors.Is(err, errDiskFull) }
