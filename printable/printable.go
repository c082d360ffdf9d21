// Package printable takes out of texts what a terminal would obey. Names of processes,
// messages, logs and the like come from distros and from servers, which may mean harm: they
// could paint over what lsub says, or write to the user's clipboard.
package printable

import (
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Text returns s with a question mark for each character that a terminal would obey and
// for each byte that is no UTF-8. Tabs and ends of lines stay.
func Text(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return r
		}
		return safe(r)
	}, s)
}

// Line is Text for what has one line: tabs and ends of lines become question marks too.
func Line(s string) string { return strings.Map(safe, s) }

func safe(r rune) rune {
	if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
		return '?'
	}
	return r
}

// Writer writes to w what Text makes of the bytes written to it. A character may come in
// several writes. Lines may end with a carriage return before the newline, as a console's do.
func Writer(w io.Writer) io.Writer { return &writer{w: w} }

type writer struct {
	w    io.Writer
	rest []byte // the beginning of a character, or of the end of a line
}

func (w *writer) Write(p []byte) (int, error) {
	b := append(w.rest, p...)
	end := len(b)
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				end = len(b) - i
			}
			break
		}
	}
	if end > 0 && b[end-1] == '\r' {
		end-- // a newline may follow
	}
	text := strings.ReplaceAll(string(b[:end]), "\r\n", "\n")
	w.rest = append([]byte(nil), b[end:]...)
	if _, err := io.WriteString(w.w, Text(text)); err != nil {
		return 0, err
	}
	return len(p), nil
}
