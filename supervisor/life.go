package supervisor

import (
	"fmt"
	"slices"
	"sync"
)

// phase is where a supervisor's VM is in its life.
type phase int

const (
	booting  phase = iota
	running        // the guest serves
	stopping       // somebody has asked for the end of the VM
	gone           // the VM has ended, or never came up
	closed         // the record of the end is written
	phases         // how many there are
)

func (p phase) String() string {
	return [...]string{"booting", "running", "stopping", "gone", "closed"}[p]
}

// transitions are the legal ones. A VM runs on where it refuses to stop.
var transitions = [phases][]phase{
	booting:  {running, gone},
	running:  {stopping, gone},
	stopping: {running, gone},
	gone:     {closed},
}

// life is the phase of a VM, who has asked for its end, and how others wait for a
// phase. It is safe for concurrent use. Its zero value is not valid; see newLife.
type life struct {
	mu      sync.Mutex
	phase   phase
	asked   int                   // how many have asked for the end, and were not refused
	reached [phases]chan struct{} // closed when the phase, or a later one, is entered first
}

func newLife() *life {
	l := &life{}
	for p := range l.reached {
		l.reached[p] = make(chan struct{})
	}
	close(l.reached[booting])
	return l
}

// enter changes the phase. A transition that is not legal is a bug: it panics.
func (l *life) enter(p phase) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.enterLocked(p)
	if p == running && l.asked > 0 {
		l.enterLocked(stopping)
	}
}

func (l *life) enterLocked(p phase) {
	if !slices.Contains(transitions[l.phase], p) {
		panic(fmt.Sprintf("supervisor: a VM that is %v cannot be %v", l.phase, p))
	}
	l.phase = p
	for _, c := range l.reached[:p+1] {
		select {
		case <-c:
		default:
			close(c)
		}
	}
}

// now returns the phase.
func (l *life) now() phase {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.phase
}

// after returns what is closed once the VM has reached a phase or a later one.
func (l *life) after(p phase) <-chan struct{} { return l.reached[p] }

// ask asks for the end of the VM: it takes no more work.
func (l *life) ask() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	if l.phase == running {
		l.enterLocked(stopping)
	}
}

// refuse takes an ask back. Once nobody asks any more, a VM that is there runs on.
func (l *life) refuse() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked--
	if l.asked == 0 && l.phase == stopping {
		l.enterLocked(running)
	}
}

// wasAsked tells whether somebody has asked for the end, and was not refused.
func (l *life) wasAsked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked > 0
}

// isStopping tells whether the VM takes no more work.
func (l *life) isStopping() bool { return l.now() >= stopping }
