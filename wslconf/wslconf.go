// Package wslconf parses files in the format of WSL's /etc/wsl.conf and
// /etc/wsl-distribution.conf:
//
//	# a comment
//	[section]
//	key = value              # a comment
//	other = "has a # in it"  and goes on \
//	    in the next line
//
// Names of sections and keys are letters and digits, in any case. A value may have quotes,
// which are dropped and keep a # from being a comment, and the escapes \\ \" \n \t \b.
// Invalid parts are skipped and reported, as in WSL: such a file never keeps a distro from
// starting.
//
//	entries, problems := wslconf.Parse(data)
//
// [Settings] is the meaning of the entries of a distro's /etc/wsl.conf and /etc/lsub.conf.
// [Set] changes one of them.
package wslconf

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// Entry is a key with its value.
type Entry struct {
	Name  string // "section.key", in lower case
	Value string
	Line  int // the first one is 1
	last  int // line in which the value ends
}

// Problem is a part of the file that was not understood.
type Problem struct {
	Line int
	Text string // as in "key user.default is set in line 3 already"
}

// String returns the problem with its line.
func (p Problem) String() string { return fmt.Sprintf("line %d: %s", p.Line, p.Text) }

// Parse parses a file. If a key is set more than once, the first value counts. The results
// are in the order of the file.
func Parse(data []byte) ([]Entry, []Problem) {
	p := parse(data)
	return p.entries, p.problems
}

func parse(data []byte) *parser {
	p := &parser{rest: string(bytes.TrimPrefix(data, []byte("\ufeff"))), lines: map[string]int{}, sections: map[string]int{}}
	for p.rest != "" {
		p.line++
		if text, ok := p.parseLine(); !ok {
			p.problems = append(p.problems, Problem{p.line, text})
			p.skipLine()
		}
	}
	return p
}

type parser struct {
	rest     string // unread input
	line     int    // current line
	section  string
	entries  []Entry
	problems []Problem
	lines    map[string]int // line of each key so far
	sections map[string]int // line where each section first begins
}

// parseLine parses a line to its end. If it cannot, it returns the reason, and the caller
// skips the rest of the line.
func (p *parser) parseLine() (problem string, ok bool) {
	p.skipSpace()
	switch c := p.peek(); {
	case c == '[':
		p.rest = p.rest[1:]
		name := p.name()
		if name == "" || p.peek() != ']' {
			return "a section is written as [name]", false
		}
		p.rest = p.rest[1:]
		p.skipSpace()
		if !p.atLineEnd() {
			return "nothing may follow [" + name + "]", false
		}
		p.section = name
		if _, ok := p.sections[name]; !ok {
			p.sections[name] = p.line
		}
	case p.atLineEnd():
	default:
		return p.setting()
	}
	p.skipLine()
	return "", true
}

// setting parses "key = value" and the line's end.
func (p *parser) setting() (problem string, ok bool) {
	line, key := p.line, p.name()
	p.skipSpace()
	if key == "" || p.peek() != '=' {
		return "a setting is written as key = value", false
	}
	p.rest = p.rest[1:]
	value, problem := p.value()
	if problem != "" {
		return problem, false
	}
	p.skipLine()
	if p.section != "" {
		key = p.section + "." + key
	}
	if before, ok := p.lines[key]; ok {
		p.problems = append(p.problems, Problem{line, fmt.Sprintf("%s is set in line %d already", key, before)})
		return "", true
	}
	p.lines[key] = line
	p.entries = append(p.entries, Entry{key, value, line, p.line})
	return "", true
}

var escapes = map[byte]byte{'\\': '\\', '"': '"', 'n': '\n', 't': '\t', 'b': '\b'}

// value reads up to the line's end or a comment.
func (p *parser) value() (value, problem string) {
	p.skipSpace()
	var v []byte
	quoted, kept := false, 0 // trailing space is dropped unless it is quoted
	for p.rest != "" && !p.atNewline() {
		c := p.rest[0]
		if c == '#' && !quoted {
			break
		}
		p.rest = p.rest[1:]
		switch c {
		case '"':
			quoted = !quoted
		case '\\':
			if p.atNewline() {
				p.newline()
				p.line++
				continue
			}
			plain, known := escapes[p.peek()]
			if !known {
				return "", `unknown escape \` + strings.Trim(strconv.QuoteRune(rune(p.peek())), "'")
			}
			p.rest = p.rest[1:]
			v = append(v, plain)
		default:
			v = append(v, c)
		}
		if c != ' ' && c != '\t' {
			kept = len(v)
		}
	}
	if quoted {
		return "", `a quote (") is not closed`
	}
	return string(v[:kept]), ""
}

// name reads letters and digits.
func (p *parser) name() string {
	n := 0
	for n < len(p.rest) && isAlnum(p.rest[n]) {
		n++
	}
	name := strings.ToLower(p.rest[:n])
	p.rest = p.rest[n:]
	return name
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// peek returns the next byte, 0 at the file's end.
func (p *parser) peek() byte {
	if p.rest == "" {
		return 0
	}
	return p.rest[0]
}

func (p *parser) skipSpace() { p.rest = strings.TrimLeft(p.rest, " \t") }

// atNewline reports whether the next bytes end a line, as Unix or Windows does.
func (p *parser) atNewline() bool {
	return strings.HasPrefix(p.rest, "\n") || strings.HasPrefix(p.rest, "\r\n") || p.rest == "\r"
}

// atLineEnd reports whether only a comment or the line's end follows.
func (p *parser) atLineEnd() bool { return p.rest == "" || p.peek() == '#' || p.atNewline() }

func (p *parser) newline() { p.rest = strings.TrimPrefix(strings.TrimPrefix(p.rest, "\r"), "\n") }

// skipLine skips to the start of the next line.
func (p *parser) skipLine() {
	_, p.rest, _ = strings.Cut(p.rest, "\n")
}
