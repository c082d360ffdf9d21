package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// report is what a run has found; its JSON is out/bench.json.
type report struct {
	Date    time.Time `json:"date"`
	Seconds float64   `json:"seconds"` // that the run took
	Quick   bool      `json:"quick,omitempty"`
	Machine machine   `json:"machine"`
	Lima    string    `json:"lima_elsewhere"` // says what the figures' key of this name means
	Figures []*figure `json:"figures"`
	Boot    []step    `json:"boot,omitempty"` // of the run of "cold" with the median
	Errors  []string  `json:"errors,omitempty"`
}

// step is a part of a start. Steps of the host and of the guest overlap.
type step struct {
	Name  string  `json:"name"`
	Start float64 `json:"start"` // ms after the command was entered
	MS    float64 `json:"ms"`
}

func (r *report) begin(b *bench) {
	r.Date, r.Quick, r.Lima = time.Now().UTC(), b.quick, limaLabel
	r.Machine = b.machine()
}

func (r *report) end(errs []error) {
	r.Seconds = math.Round(time.Since(r.Date).Seconds())
	r.Machine.LoadAfter = load()
	for _, err := range errs {
		r.Errors = append(r.Errors, err.Error())
	}
}

// write writes the report as JSON.
func (r *report) write(path string) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// print prints the report for people.
func (r *report) print(w io.Writer) {
	kvm, err := readKVM()
	if err != nil {
		fmt.Fprintln(w, err)
	}
	rows := [][]string{{"figure", "unit", "median", "p95", "min", "max", "n", "aim", "peer", "median", "p95", "ratio", kvm.label(), limaLabel}}
	var notes []string
	note := func(text string) string {
		if text == "" {
			return ""
		}
		notes = append(notes, text)
		return fmt.Sprintf(" [%d]", len(notes))
	}
	for _, f := range r.Figures {
		row := []string{
			f.Name + note(f.Note), f.Unit, f.number(f.Median), number(f.P95), f.number(f.Min), f.number(f.Max),
			strconv.Itoa(f.N), f.aims(), "", "", "", number(f.Ratio), number(kvm.Medians[f.Name]), number(f.Lima),
		}
		if p := f.Peer; p != nil {
			row[8], row[9], row[10] = p.Name+note(p.Note), p.number(p.Median), number(p.P95)
		}
		rows = append(rows, row)
	}
	align(w, rows, 0, 1, 7, 8, 12)
	fmt.Fprintln(w, "\nratio: how many times better than the peer's our median is")
	for i, text := range notes {
		fmt.Fprintf(w, "[%d] %s\n", i+1, text)
	}
	if len(r.Boot) > 0 {
		fmt.Fprintln(w, "\nWhere a cold start's time goes, in ms from the command's start (the run with the median; steps overlap):")
		rows = [][]string{{"step", "from", "takes"}}
		for _, s := range r.Boot {
			rows = append(rows, []string{s.Name, number(s.Start), number(s.MS)})
		}
		align(w, rows, 0)
	}
	m := r.Machine
	fmt.Fprintf(w, "\n%s, %d × %s, %s MiB, %s, Linux %s; load %s before, %s after\n", r.Date.Format(time.DateOnly), m.CPUs, m.CPU, m.MemoryMiB, m.OS, m.Kernel, m.LoadBefore, m.LoadAfter)
	fmt.Fprintf(w, "%s at %s; %s%s\n", m.Lsub, m.Commit, m.QEMU, m.guest())
	for _, e := range r.Errors {
		fmt.Fprintln(w, "NOT MEASURED:", e)
	}
}

// aims are a figure's aims for the median and the 95th percentile.
func (f *figure) aims() string {
	text := number(f.Aim)
	if f.AimP95 != 0 {
		text += ", p95 " + number(f.AimP95)
	}
	return text
}

// number writes a value of samples, which may be 0.
func (s summary) number(v float64) string {
	if s.N > 0 && v == 0 {
		return "0"
	}
	return number(v)
}

// number writes three digits that count; what is not known is empty.
func number(v float64) string {
	switch {
	case v == 0:
		return ""
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	text := strconv.FormatFloat(v, 'f', min(digits, 3), 64)
	if strings.Contains(text, ".") {
		text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	}
	return text
}

// align prints rows in columns; those of the numbers left are set to the left.
func align(w io.Writer, rows [][]string, left ...int) {
	var width []int
	for _, row := range rows {
		for i, cell := range row {
			if i == len(width) {
				width = append(width, 0)
			}
			width[i] = max(width[i], utf8.RuneCountInString(cell))
		}
	}
	toLeft := map[int]bool{len(rows[0]) - 1: len(rows[0]) > 3} // a long heading
	for _, i := range left {
		toLeft[i] = true
	}
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			space := strings.Repeat(" ", width[i]-utf8.RuneCountInString(cell))
			if toLeft[i] {
				cell += space
			} else {
				cell = space + cell
			}
			line.WriteString(cell + "  ")
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}
