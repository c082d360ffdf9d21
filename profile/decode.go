package profile

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/lsub/lsub/hint"
)

// Parse reads what is in a file. The file's name is for messages. It opens no other file: of
// what the file builds on, it knows the templates alone.
func Parse(file string, data []byte) (*Profile, error) { return ParseFrom(file, data, Source{}) }

// ParseFrom is Parse with what the file builds on.
func ParseFrom(file string, data []byte, src Source) (*Profile, error) {
	d := newDecoder(file)
	d.readFrom(data, src)
	showSource(d.problems, data)
	if err := asError(file, d.problems); err != nil {
		return nil, err
	}
	return d.p, nil
}

func newDecoder(file string) *decoder {
	d := &decoder{p: Default(), known: map[string]bool{}, rules: map[string]*yaml.Node{}, foreign: map[*yaml.Node]string{}}
	d.p.file, d.p.where, d.p.foreign = file, map[string]position{}, map[string]string{}
	return d
}

func (d *decoder) read(data []byte) { d.readFrom(data, Source{}) }

func (d *decoder) readFrom(data []byte, src Source) {
	root := d.document(data)
	if root == nil {
		root = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Line: 1, Column: 1}
	}
	d.decode(d.withBase(root, src, 0), src)
}

// decode reads a document that has all of its bases.
func (d *decoder) decode(root *yaml.Node, src Source) {
	d.params(root, src.Set)
	d.profile(root)
}

// decoder makes a Profile of the nodes of a YAML document, and notes all that
// is wrong on the way. Its methods for one kind of value report a value of
// another kind, and leave what they were to set as it is.
type decoder struct {
	p        *Profile
	problems []Problem
	known    map[string]bool       // every key that was looked for, by its path
	rules    map[string]*yaml.Node // of ports, by where they stand
	foreign  map[*yaml.Node]string // files of nodes that come from another one
}

// document returns the only document's value, nil for none.
func (d *decoder) document(data []byte) *yaml.Node {
	if at := invalidUTF8(data); at != nil {
		d.problems = append(d.problems, Problem{Line: at.line, Column: at.column, Text: "the file is not UTF-8"})
		return nil
	}
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		d.syntax(err)
		return nil
	}
	var doc, next yaml.Node
	if err := loader.Load(&doc); err != nil {
		if !errors.Is(err, io.EOF) {
			d.syntax(err)
		}
		return nil
	}
	switch err := loader.Load(&next); {
	case err == nil:
		d.problem(&next, "a profile is one document")
	case !errors.Is(err, io.EOF):
		d.syntax(err)
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil
	}
	return doc.Content[0]
}

// invalidUTF8 returns where the first byte is that no character has, or nil.
func invalidUTF8(data []byte) *position {
	if utf8.Valid(data) {
		return nil
	}
	at := position{1, 1}
	for rest := data; len(rest) > 0; {
		r, n := utf8.DecodeRune(rest)
		if r == utf8.RuneError && n == 1 {
			break
		}
		at.column++
		if r == '\n' {
			at = position{at.line + 1, 1}
		}
		rest = rest[n:]
	}
	return &at
}

// syntax notes that the file is no YAML.
func (d *decoder) syntax(err error) {
	p := Problem{Line: 1, Column: 1, Text: err.Error()}
	var load *yaml.LoadError
	if errors.As(err, &load) {
		p.Text = load.Message
		if load.ContextMsg != "" {
			p.Text = load.ContextMsg + ": " + p.Text
		}
		p.Line, p.Column = max(load.Mark.Line, 1), max(load.Mark.Column, 1)
	}
	d.problems = append(d.problems, p)
}

func (d *decoder) problem(n *yaml.Node, format string, args ...any) {
	d.problems = append(d.problems, Problem{File: d.foreign[n], Line: max(n.Line, 1), Column: max(n.Column, 1), Text: fmt.Sprintf(format, args...)})
}

// at says where a node stands, as messages name it.
func (d *decoder) at(n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", cmp.Or(d.foreign[n], d.p.file), n.Line, n.Column)
}

// ruleAt notes where a rule stands, and returns it as messages name it.
func (d *decoder) ruleAt(n *yaml.Node) string {
	at := d.at(n)
	d.rules[at] = n
	return at
}

// target is what an alias stands for, and n itself where it is none.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
	}
	return n
}

// empty tells whether a key was written without a value: it means the default.
func empty(n *yaml.Node) bool {
	n = target(n)
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

// field is a key of a mapping and what takes its value.
type field struct {
	name string
	take func(path string, n *yaml.Node)
}

// mapping gives each value to its field, in the order of the fields: one may
// build on those before it. path is that of the mapping, with a dot at its end
// unless it is the file's.
func (d *decoder) mapping(path string, n *yaml.Node, fields ...field) {
	for _, f := range fields {
		d.known[path+f.name] = true
	}
	values := map[string]*yaml.Node{}
	d.pairs(path, n, func(key string, k, v *yaml.Node) {
		if !slices.ContainsFunc(fields, func(f field) bool { return f.name == key }) {
			d.unknownKey(k, key, fields)
		} else if !empty(v) {
			values[key] = v
			d.p.where[path+key] = position{v.Line, v.Column}
			if file := d.foreign[v]; file != "" {
				d.p.foreign[path+key] = file
			}
		}
	})
	for _, f := range fields {
		if v := values[f.name]; v != nil {
			f.take(path+f.name, v)
		}
	}
}

func (d *decoder) unknownKey(k *yaml.Node, key string, fields []field) {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	// People write hostAddress and host-address too.
	plain := strings.NewReplacer("-", "", "_", "")
	for _, name := range names {
		if strings.EqualFold(plain.Replace(name), plain.Replace(key)) {
			d.problem(k, "unknown key %q; did you mean %q?", key, name)
			return
		}
	}
	if near := hint.Nearest(key, names); near != "" {
		d.problem(k, "unknown key %q; did you mean %q?", key, near)
		return
	}
	slices.Sort(names)
	d.problem(k, "unknown key %q; there are %s", key, strings.Join(names, ", "))
}

// pairs calls f for each key and value of a mapping whose keys are words.
func (d *decoder) pairs(path string, n *yaml.Node, f func(key string, k, v *yaml.Node)) {
	m := target(n)
	if m.Kind != yaml.MappingNode {
		what := strings.TrimSuffix(path, ".")
		if what == "" {
			what = "a profile"
		}
		d.problem(n, "%s has to be keys with values, not %s", what, kindOf(m))
		return
	}
	lines := map[string]int{}
	for i := 0; i+1 < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		key := target(k)
		switch {
		case key.Kind != yaml.ScalarNode:
			d.problem(k, "a key has to be a word, not %s", kindOf(key))
		case key.ShortTag() == "!!merge":
			d.problem(k, "a profile has no merge keys; write the values out")
		case lines[key.Value] > 0:
			d.problem(k, "key %q is on line %d already", key.Value, lines[key.Value])
		default:
			lines[key.Value] = k.Line
			f(key.Value, k, v)
		}
	}
}

// list calls f for each item. One value may stand for a list of it.
func (d *decoder) list(path string, n *yaml.Node, f func(n *yaml.Node)) {
	for _, item := range items(n) {
		if empty(item) {
			d.problem(item, "%s has an empty item", path)
			continue
		}
		f(item)
	}
}

// items returns those of a list, or a value that stands for a list of it.
func items(n *yaml.Node) []*yaml.Node {
	if l := target(n); l.Kind == yaml.SequenceNode {
		return l.Content
	}
	return []*yaml.Node{n}
}

// text returns a single value as it was written.
func (d *decoder) text(path string, n *yaml.Node) (string, bool) {
	v := target(n)
	if v.Kind != yaml.ScalarNode {
		d.problem(n, "%s has to be one value, not %s", path, kindOf(v))
		return "", false
	}
	return v.Value, true
}

// value has parse make a T of a single value.
func value[T any](d *decoder, path string, n *yaml.Node, parse func(string) (T, error)) (T, bool) {
	var none T
	text, ok := d.text(path, n)
	if !ok {
		return none, false
	}
	v, err := parse(text)
	if err != nil {
		d.problem(n, "%s: %v", path, err)
		return none, false
	}
	return v, true
}

// set returns what has parse make *to of a single value.
func set[T any](d *decoder, to *T, parse func(string) (T, error)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		if v, ok := value(d, path, n, parse); ok {
			*to = v
		}
	}
}

// collect returns what appends what parse makes of each item of a list.
func collect[T any](d *decoder, to *[]T, parse func(string) (T, error)) func(string, *yaml.Node) {
	return func(path string, n *yaml.Node) {
		d.list(path, n, func(n *yaml.Node) {
			if v, ok := value(d, path, n, parse); ok {
				*to = append(*to, v)
			}
		})
	}
}

func kindOf(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys with values"
	case yaml.SequenceNode:
		return "a list"
	}
	return "one value"
}
