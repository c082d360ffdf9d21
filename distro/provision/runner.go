package provision

import (
	"context"
	"io"
	"net"
	"time"

	"github.com/lsub/lsub/guest"
)

// Target is a distro that runs.
type Target interface {
	// Exec runs a command and returns how it ended. When ctx is done, it is hung up (SIGHUP).
	Exec(ctx context.Context, c Command) (guest.Exit, error)
	// Connect connects to a TCP port of its localhost.
	Connect(ctx context.Context, port int) (net.Conn, error)
}

// Command is a command for a Target.
type Command struct {
	Argv           []string
	User           string // "" is the default user
	Login          bool   // through the login shell
	Env            []string
	Stdin          io.Reader // nil is an empty file
	Stdout, Stderr io.Writer
	Signals        <-chan int
}

// Runner runs commands in a distro and tells of them.
type Runner struct {
	Target Target
	Distro string      // its name, for events and errors
	Tell   func(Event) // from one goroutine at a time
}

// Task is a command of lsub's own, and what events and errors call it.
type Task struct {
	Command
	Kind    Kind
	Name    string
	At      string                 // "FILE:LINE:COLUMN" of the profile, "" for none
	Timeout time.Duration          // 0 for none
	First   func(line string) bool // takes a line of stdout that is no output, once; may be nil
}

const (
	// killAfter is how long a command has that is asked to end.
	killAfter = 10 * time.Second
	// MaxLast is how many of the last lines an error has.
	MaxLast = 10
)

// Run runs a task, and tells of its lines. Where its status is not 0, the error is a [*StepError].
func (r Runner) Run(ctx context.Context, t Task) error {
	out := newLines(func(line string) {
		r.Tell(Event{Type: Output, Distro: r.Distro, Kind: t.Kind, Name: t.Name, Text: line})
	})
	t.Stdout, t.Stderr = out.stream(t.First), out.stream(nil)
	end := t.limit()
	exit, err := r.Target.Exec(ctx, t.Command)
	late := end()
	if err != nil {
		return err
	}
	out.end()
	if exit.Status() == 0 {
		return nil
	}
	failed := &StepError{Distro: r.Distro, Kind: t.Kind, Name: t.Name, At: t.At, Status: exit.Status(), Last: out.last}
	if late {
		failed.After = t.Timeout
	}
	return failed
}

// limit has a command be asked to end, and then be killed, when its time is over. end tells
// whether it was.
func (t *Task) limit() (end func() (late bool)) {
	if t.Timeout == 0 {
		return func() bool { return false }
	}
	signals, ended, late := make(chan int, 2), make(chan struct{}), make(chan bool)
	t.Signals = signals
	go func() {
		select {
		case <-ended:
			late <- false
			return
		case <-time.After(t.Timeout):
		}
		signals <- 15
		select {
		case <-ended:
		case <-time.After(killAfter):
			signals <- 9
			<-ended
		}
		late <- true
	}()
	return func() bool {
		close(ended)
		return <-late
	}
}
