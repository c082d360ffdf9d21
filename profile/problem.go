package profile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	Line, Column int // from 1; a column is a character
	Text         string
}

// Error is everything that is wrong with a file, in the file's order.
type Error struct {
	File     string
	Problems []Problem
}

// Error has a line for each problem: "FILE:LINE:COLUMN: what is wrong".
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = fmt.Sprintf("%s:%d:%d: %s", e.File, p.Line, p.Column, p.Text)
	}
	return strings.Join(lines, "\n")
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
