package provision

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Version is the one of the JSON of an [Event].
const Version = 1

// Event is something that an Up does or has found. Its JSON is a line of 'lsub up --json', and of the log of provisioning.
type Event struct {
	V      int       `json:"v"`
	Time   time.Time `json:"time"`
	Type   Type      `json:"type"`
	Distro string    `json:"distro,omitempty"` // "" for the VM
	Kind   Kind      `json:"kind,omitempty"`
	Name   string    `json:"name,omitempty"` // of what Kind says: a path, the name of a step, …
	Text   string    `json:"text,omitempty"` // for people: a line of output, or why
}

// Type says what an event is.
type Type string

const (
	Plan    Type = "plan"    // it would be done; in a dry run
	Begin   Type = "begin"   // it is being done
	Output  Type = "output"  // a line of what is being done
	Done    Type = "done"    // it is done
	Restart Type = "restart" // a change needs a restart that was not allowed
	Left    Type = "left"    // the file does not have it any more, and it stays
	Note    Type = "note"
	Failed  Type = "failed" // the whole; Text is the error
	End     Type = "end"    // of the whole, where it has succeeded; Name is the number of changes
)

// Kind says what a change is of.
type Kind string

const (
	KindVM        Kind = "vm"
	KindDistro    Kind = "distro"
	KindStart     Kind = "start"
	KindRestart   Kind = "restart"
	KindUser      Kind = "user"
	KindLimits    Kind = "limits"
	KindIdle      Kind = "idle"
	KindAutostart Kind = "autostart"
	KindSystemd   Kind = "systemd"
	KindNetwork   Kind = "network"
	KindPackages  Kind = "packages"
	KindFile      Kind = "file"
	KindStep      Kind = "step"
	KindProbe     Kind = "probe"
)

// StepError says that something in a distro failed.
type StepError struct {
	Distro string
	Kind   Kind
	Name   string
	At     string        // "FILE:LINE:COLUMN" of the profile, "" for none
	Status int           // exit status
	After  time.Duration // the time limit that it has exceeded, 0 for none
	Last   []string      // its last lines
}

// Error has the last lines below what has failed.
func (e *StepError) Error() string {
	var b strings.Builder
	if e.At != "" {
		b.WriteString(e.At + ": ")
	}
	fmt.Fprintf(&b, "%s: %s", e.Distro, what(e.Kind, e.Name))
	if e.After > 0 {
		fmt.Fprintf(&b, " did not end within %v", e.After)
	} else {
		fmt.Fprintf(&b, " ended with status %d", e.Status)
	}
	for _, line := range e.Last {
		b.WriteString("\n" + line)
	}
	return b.String()
}

// ExitCode is the status of what failed.
func (e *StepError) ExitCode() int { return e.Status }

// what names a thing for people.
func what(kind Kind, name string) string {
	if kind == KindStep && strings.HasPrefix(name, "step ") || name == "" {
		return cmp.Or(name, string(kind))
	}
	return string(kind) + " " + name
}

// String is the event as a line for people; "" for one that they need not see.
func (e Event) String() string {
	where := cmp.Or(e.Distro, "VM")
	thing := what(e.Kind, e.Name)
	switch {
	case e.Kind == KindDistro || e.Kind == KindVM:
		thing = e.Text
	case e.Text != "" && e.Text != "remove":
		thing += " " + e.Text
	case e.Text == "remove":
		thing = "remove " + thing
	}
	switch e.Type {
	case Plan:
		sign := "+"
		if e.Text == "remove" {
			sign = "-"
		}
		return fmt.Sprintf("%s %s: %s", sign, where, thing)
	case Begin:
		return where + ": " + thing
	case Output:
		return where + " | " + e.Text
	case Restart:
		return fmt.Sprintf("%s: %s; 'lsub up --restart' restarts it", where, e.Text)
	case Left:
		if e.Kind == KindDistro {
			return where + ": left the file; 'lsub up --prune' removes it"
		}
		return fmt.Sprintf("%s: %s left the file; 'lsub up --prune' removes it", where, what(e.Kind, e.Name))
	case Note:
		if e.Distro == "" {
			return e.Text
		}
		return where + ": " + e.Text
	}
	return ""
}
