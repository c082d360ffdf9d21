package wslconf

import (
	"bytes"
	"strings"
)

// Set returns the file with a key's value changed. A new key is added to the first section of
// that name, or in a new section at the end. All other lines stay unchanged. A UTF-16 file
// becomes UTF-8.
func Set(data []byte, section, key, value string) []byte {
	text, _ := Decode(data)
	p := parse(text)
	name := strings.ToLower(section + "." + key)
	line := key + "=" + quote(value)
	lines := bytes.SplitAfter(text, []byte("\n")) // the last one follows the last newline and is often empty
	for _, e := range p.entries {
		if e.Name == name {
			return splice(lines, e.Line-1, e.last, line)
		}
	}
	if at, ok := p.sections[strings.ToLower(section)]; ok {
		return splice(lines, at, at, line)
	}
	out := bytes.Clone(text)
	end := newlineOf(lines, len(lines))
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, end...)
	}
	if len(out) > 0 {
		out = append(out, end...) // a blank line, which also ends a value that continues after a \
	}
	return append(out, "["+section+"]"+end+line+end...)
}

// splice replaces the lines from from up to to (exclusive) by one line.
func splice(lines [][]byte, from, to int, line string) []byte {
	end := newlineOf(lines, to)
	out := bytes.Join(lines[:from], nil)
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, end...)
	}
	if from == 0 && bytes.HasPrefix(lines[0], []byte("\ufeff")) {
		out = append(out, "\ufeff"...)
	}
	out = append(out, line+end...)
	return append(out, bytes.Join(lines[min(to, len(lines)):], nil)...)
}

// newlineOf returns the end of the line before line n: Unix or Windows.
func newlineOf(lines [][]byte, n int) string {
	for _, l := range lines[:min(n, len(lines))] {
		if bytes.HasSuffix(l, []byte("\r\n")) {
			return "\r\n"
		}
	}
	return "\n"
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`, "\b", `\b`)

// quote formats a value so that it is read back unchanged.
func quote(v string) string {
	q := quoter.Replace(v)
	if q != v || v != strings.TrimSpace(v) || strings.ContainsAny(v, "#\r") {
		return `"` + q + `"`
	}
	return v
}
