package profile

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/lsub/lsub/hint"
)

// Insert returns a file with one more key, such as "idle.vm". value is YAML in one line. All
// else stays as it is, byte for byte: comments, order and line ends. there tells that the file
// has the key already; then nothing is changed.
func Insert(file string, data []byte, key, value string) (out []byte, there bool, err error) {
	if _, err := Parse(file, data); err != nil {
		return nil, false, err
	}
	d := newDecoder(file)
	root := d.document(data)
	names := strings.Split(key, ".")
	newline := "\n"
	if bytes.Contains(data, []byte("\r\n")) {
		newline = "\r\n"
	}
	if root == nil || empty(root) { // at most comments
		out = appendLines(data, newline, lines(names, value, 0, newline))
	} else if out, there, err = insertBelow(data, root, nil, names, value, newline); there || err != nil {
		return data, there, err
	}
	if _, err := Parse(file, out); err != nil {
		return nil, false, hint.New(fmt.Errorf("%s has no place for %s that lsub finds", file, key), "write it there yourself: "+key+": "+value)
	}
	return out, false, nil
}

// insertBelow puts keys into a mapping. parent is the key whose value it is, nil at the top.
func insertBelow(data []byte, m, parent *yaml.Node, names []string, value, newline string) ([]byte, bool, error) {
	if m.Kind != yaml.MappingNode {
		return nil, false, fmt.Errorf("%s is an alias or no mapping; lsub does not change it", parent.Value)
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		switch {
		case k.Value != names[0]:
		case len(names) == 1 && !empty(v):
			return data, true, nil
		case empty(v) && v.Value == "" && len(names) == 1: // "key:" without a value
			at := offset(data, k.Line, k.Column) + len(k.Value)
			colon := bytes.IndexByte(data[at:], ':')
			return splice(data, at+colon+1, " "+value), false, nil
		case empty(v) && v.Value == "" && m.Style&yaml.FlowStyle == 0:
			return insertLines(data, k.Line, lines(names[1:], value, k.Column+1, newline), newline), false, nil
		default:
			return insertBelow(data, v, k, names[1:], value, newline)
		}
	}
	switch {
	case m.Style&yaml.FlowStyle != 0:
		text := flow(names, value)
		if len(m.Content) > 0 {
			text += ", "
		}
		return splice(data, offset(data, m.Line, m.Column)+1, text), false, nil
	case parent == nil:
		return appendLines(data, newline, lines(names, value, m.Content[0].Column-1, newline)), false, nil
	}
	return insertLines(data, parent.Line, lines(names, value, m.Content[0].Column-1, newline), newline), false, nil
}

// lines are the lines of keys, one below the other, of which the last has a value.
func lines(names []string, value string, indent int, newline string) string {
	var b strings.Builder
	for i, name := range names {
		b.WriteString(strings.Repeat(" ", indent+2*i) + name + ":")
		if i == len(names)-1 {
			b.WriteString(" " + value)
		}
		b.WriteString(newline)
	}
	return b.String()
}

// flow is what lines is in a mapping in braces.
func flow(names []string, value string) string {
	if len(names) == 1 {
		return names[0] + ": " + value
	}
	return names[0] + ": {" + flow(names[1:], value) + "}"
}

// offset is where a place is in the file, in bytes.
func offset(data []byte, line, column int) int {
	at := 0
	for range line - 1 {
		at += bytes.IndexByte(data[at:], '\n') + 1
	}
	if line == 1 && bytes.HasPrefix(data, []byte("\ufeff")) {
		at += len("\ufeff")
	}
	for range column - 1 {
		_, n := utf8.DecodeRune(data[at:])
		at += n
	}
	return at
}

func splice(data []byte, at int, text string) []byte {
	return append(append(append([]byte{}, data[:at]...), text...), data[at:]...)
}

// insertLines puts lines after a line of the file.
func insertLines(data []byte, line int, text, newline string) []byte {
	at := offset(data, line, 1)
	end := bytes.IndexByte(data[at:], '\n')
	if end < 0 {
		return appendLines(data, newline, text)
	}
	return splice(data, at+end+1, text)
}

// appendLines puts lines at the end of the file.
func appendLines(data []byte, newline, text string) []byte {
	out := append([]byte{}, data...)
	if len(out) > 0 && !bytes.HasSuffix(out, []byte("\n")) {
		out = append(out, newline...)
	}
	return append(out, text...)
}
