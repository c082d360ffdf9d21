package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/cheggaaa/pb/v3"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/printable"
)

const barTemplate = `{{string . "text"}} {{counters .}} {{bar .}} {{percent .}}`

// progress shows how far long work is: as a bar on a terminal, elsewhere as a
// line for each step.
type progress struct {
	app      *app
	status   *statusLine
	terminal io.Writer // nil where there is none
	plain    io.Writer

	mu       sync.Mutex
	starting bool // a start of the VM was told of
	text     string
	bar      *pb.ProgressBar
}

// newProgress shows the stages of a start of the VM too, until its end.
func (a *app) newProgress() *progress {
	p := &progress{app: a, status: a.status, terminal: a.status.w, plain: a.stderr}
	a.progress.Store(p)
	return p
}

// startStage says what a start of the VM does.
func (a *app) startStage(text string) {
	if p := a.progress.Load(); p != nil {
		p.startStage(text)
	} else {
		a.status.set(text)
	}
}

// startStage takes one line for the start of the VM where each would stay.
func (p *progress) startStage(text string) {
	p.mu.Lock()
	told := p.starting && p.terminal == nil
	p.starting = true
	p.mu.Unlock()
	if !told {
		p.stage(text)
	}
}

// stage says what is being done, where nobody knows how much there is to do.
func (p *progress) stage(text string) { p.step(distro.Step{Text: text}) }

// step says how far what is being done is.
func (p *progress) step(s distro.Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.Text != p.text {
		p.finish()
		p.text = s.Text
		if p.terminal == nil {
			fmt.Fprintf(p.plain, "lsub: %s\n", printable.Line(s.Text))
		}
	}
	switch {
	case p.terminal == nil:
	case s.Total == 0:
		p.finish()
		text := s.Text
		if s.Bytes && s.Done > 0 {
			text += " " + size(uint64(s.Done))
		}
		p.status.set(text)
	case p.bar == nil:
		p.status.clear()
		p.bar = pb.New64(s.Total).Set("text", s.Text).Set(pb.Bytes, s.Bytes).Set(pb.CleanOnFinish, true).
			SetTemplateString(barTemplate).SetWriter(p.terminal).SetCurrent(s.Done).Start().Write()
	default:
		p.bar.SetTotal(s.Total).SetCurrent(s.Done)
	}
}

func (p *progress) finish() {
	if p.bar != nil {
		p.bar.Finish()
		p.bar = nil
	}
}

// aside calls f while the terminal shows nothing of it. The next step brings it
// back.
func (p *progress) aside(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.status.clear()
	f()
}

// end takes it off the terminal.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.status.clear()
	p.app.progress.CompareAndSwap(p, nil)
}

// idle takes what was being done off the terminal.
func (p *progress) idle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finish()
	p.status.clear()
}

// events shows what the operations of package distro tell.
type events struct{ app *app }

func (e events) Progress(s distro.Step) {
	p := e.app.progress.Load()
	switch {
	case s.Text == "" && p != nil:
		p.idle()
	case s.Text == "":
		e.app.status.clear()
	case s.Brief:
		e.app.status.setSoon(s.Text)
	case p != nil:
		p.step(s)
	default:
		e.app.status.set(s.Text)
	}
}

func (e events) Note(text string) { e.app.note("note", text) }
func (e events) Warn(text string) { e.app.note("warning", text) }
