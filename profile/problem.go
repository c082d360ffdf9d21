package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File         string // "" for the file of the Error
	Line, Column int    // from 1; a column is a character
	Text         string
	Source       string // the line of the file, "" where it is unknown or too long to show
}

// Error is everything that is wrong with a file, in the file's order.
type Error struct {
	File     string
	Problems []Problem
}

// Error has a line for each problem, "FILE:LINE:COLUMN: what is wrong", and below it the
// line of the file with a caret at the column.
func (e *Error) Error() string {
	var lines []string
	for _, p := range e.Problems {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", cmp.Or(p.File, e.File), p.Line, p.Column, p.Text))
		if p.Source != "" {
			lines = append(lines, "    "+p.Source, "    "+strings.Repeat(" ", p.Column-1)+"^")
		}
	}
	return strings.Join(lines, "\n")
}

// maxSource is the most characters of a line that is shown.
const maxSource = 120

// showSource has problems show their lines of a file.
func showSource(problems []Problem, data []byte) {
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	for i := range problems {
		p := &problems[i]
		if p.Line > len(lines) || p.File != "" || p.Source != "" {
			continue
		}
		line := strings.TrimPrefix(lines[p.Line-1], "\ufeff")
		line = strings.ReplaceAll(line, "\t", " ") // a tab is one column
		n := utf8.RuneCountInString(line)
		if utf8.ValidString(line) && n <= maxSource && p.Column <= n+1 && strings.TrimSpace(line) != "" {
			p.Source = line
		}
	}
}

// maxProblems is how many an Error has at most: nobody reads more at once.
const maxProblems = 20

// asError returns the problems as an error, nil where there are none.
func asError(file string, problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if more := len(problems) - maxProblems; more > 0 {
		last := problems[maxProblems-1]
		last.Text += fmt.Sprintf(" (and %d more problems)", more)
		problems = append(problems[:maxProblems-1:maxProblems-1], last)
	}
	return &Error{file, problems}
}

// position is a place in a file.
type position struct{ line, column int }

func (p position) String() string { return fmt.Sprintf("%d:%d", p.line, p.column) }
