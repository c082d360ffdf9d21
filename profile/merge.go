package profile

import (
	"cmp"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile/templates"
)

// Source says where files that a file builds on come from.
type Source struct {
	// Set has values of params, in place of those of the file.
	Set map[string]string
	// File reads a file. Nil leaves bases out that are files.
	File func(path string) ([]byte, error)
	// Fetch returns what an https address has, whose SHA-256 is in hex. Nil leaves such bases out.
	Fetch func(url, sha256 string) ([]byte, error)
	// Dir is where relative paths of the file start.
	Dir string
}

const (
	// maxBases is how many files build on each other.
	maxBases = 8
	// maxParams is how many params a file has.
	maxParams = 256
	// maxExpanded is how long a value becomes by params, in bytes.
	maxExpanded = 1 << 20
)

// base is what a file builds on: a template, a file, or an address.
type base struct{ template, file, url, sha256 string }

// withBase returns a document with what it builds on. A base is a valid file itself, with
// params of its own: what is wrong with it is told of it. depth is how many build on it.
func (d *decoder) withBase(root *yaml.Node, src Source, depth int) *yaml.Node {
	key, n := lookup(root, "base")
	if key == nil || empty(n) {
		return root
	}
	d.known["base"], d.p.where["base"] = true, position{n.Line, n.Column}
	b, ok := d.base(n)
	if !ok {
		return root
	}
	name, dir := "", src.Dir
	var data []byte
	var err error
	switch {
	case depth == maxBases:
		err = fmt.Errorf("more than %d files build on each other", maxBases)
	case b.template != "":
		name = "template:" + b.template
		if data, ok = templates.Read(b.template); !ok {
			err = fmt.Errorf("there is no template %q; there are %s", b.template, strings.Join(templates.Names(), ", "))
		}
	case b.url != "" && src.Fetch != nil:
		name, dir = b.url, ""
		data, err = src.Fetch(b.url, b.sha256)
	case b.file != "" && src.File != nil:
		if name = filepath.FromSlash(b.file); !filepath.IsAbs(name) {
			name = filepath.Join(src.Dir, name)
		}
		dir = filepath.Dir(name)
		data, err = src.File(name)
	default:
		return root
	}
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	if err != nil {
		d.problem(n, "base: %v", err)
		return root
	}
	below := newDecoder(name)
	var under *yaml.Node
	if under = below.document(data); under != nil && !empty(under) {
		from := src
		from.Dir = dir
		under = below.withBase(under, from, depth+1)
	}
	if len(below.problems) == 0 && under != nil {
		check := newDecoder(name)
		check.decode(copyOf(under), Source{})
		below.problems = check.problems
	}
	if len(below.problems) > 0 {
		showSource(below.problems, data)
		d.problem(n, "base: %v", asError(name, below.problems))
		return root
	}
	if under == nil || empty(under) {
		return root
	}
	for _, n := range below.all(under) {
		if d.foreign[n] == "" {
			d.foreign[n] = cmp.Or(below.foreign[n], name)
		}
	}
	if dir != "" && dir != src.Dir {
		d.anchor(under, dir)
	}
	return d.merge(under, root)
}

// all returns a node and those below it, without those behind aliases.
func (d *decoder) all(n *yaml.Node) []*yaml.Node {
	nodes := []*yaml.Node{n}
	for _, c := range n.Content {
		nodes = append(nodes, d.all(c)...)
	}
	return nodes
}

// anchor makes the relative paths of a base's distros absolute: they start at its folder.
func (d *decoder) anchor(root *yaml.Node, dir string) {
	_, distros := lookup(root, "distros")
	for _, distro := range values(distros) {
		_, files := lookup(distro, "files")
		for _, f := range values(files) {
			anchorKey(f, "source", dir)
		}
		if _, steps := lookup(distro, "provision"); steps != nil {
			for _, s := range items(steps) {
				anchorKey(s, "file", dir)
			}
		}
	}
}

func anchorKey(m *yaml.Node, key, dir string) {
	if _, v := lookup(m, key); v != nil && v.Kind == yaml.ScalarNode && v.Value != "" {
		if _, err := parseHostPath(v.Value); err != nil {
			v.Value = filepath.Join(dir, filepath.FromSlash(v.Value))
		}
	}
}

// lookup returns a key of a mapping and its value, nil for none.
func lookup(m *yaml.Node, name string) (key, value *yaml.Node) {
	if m == nil {
		return nil, nil
	}
	if m = target(m); m.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Kind == yaml.ScalarNode && m.Content[i].Value == name {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

// values returns the values of a mapping.
func values(m *yaml.Node) (all []*yaml.Node) {
	if m == nil {
		return nil
	}
	if m = target(m); m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 1; i < len(m.Content); i += 2 {
		all = append(all, m.Content[i])
	}
	return all
}

// base reads the key base.
func (d *decoder) base(n *yaml.Node) (b base, ok bool) {
	before := len(d.problems)
	if target(n).Kind == yaml.MappingNode {
		d.mapping("base.", n,
			field{"url", set(d, &b.url, parseCatalogueURL)},
			field{"sha256", set(d, &b.sha256, parseSHA256)},
		)
		if len(d.problems) == before && (b.url == "" || b.sha256 == "") {
			d.problem(n, "base: an address needs both url and sha256")
		}
		return b, len(d.problems) == before
	}
	text, ok := d.text("base", n)
	switch name, isTemplate := strings.CutPrefix(text, "template:"); {
	case !ok:
	case isTemplate:
		b.template = name
	case strings.Contains(text, "://"):
		d.problem(n, "base: an address needs its digest: write {url: %s, sha256: …}", text)
	case text == "" || strings.ContainsAny(text, "\x00\n\r"):
		d.problem(n, "base: %q is no path; write template:NAME or a file", text)
	default:
		b.file = text
	}
	return b, len(d.problems) == before
}

var isSHA256 = regexp.MustCompile(`^[0-9a-f]{64}$`)

func parseSHA256(text string) (string, error) {
	if !isSHA256.MatchString(text) {
		return "", fmt.Errorf("%q is no SHA-256; it has 64 hex digits in small letters", text)
	}
	return text, nil
}

// merge returns over with what under has besides. docs/profile.md says the rules.
func (d *decoder) merge(under, over *yaml.Node) *yaml.Node {
	u, o := target(under), target(over)
	switch {
	case u.Kind == yaml.MappingNode && o.Kind == yaml.MappingNode:
		m := *o
		m.Content = nil
		for i := 0; i+1 < len(u.Content); i += 2 {
			k, v := u.Content[i], u.Content[i+1]
			if ok, ov := lookup(o, k.Value); ok != nil {
				k, v = ok, d.merge(v, ov)
			}
			m.Content = append(m.Content, k, v)
		}
		for i := 0; i+1 < len(o.Content); i += 2 { // also a key that is there twice, to be told of
			k := o.Content[i]
			first, _ := lookup(o, k.Value)
			if uk, _ := lookup(u, k.Value); uk == nil || first != k {
				m.Content = append(m.Content, k, o.Content[i+1])
			}
		}
		return &m
	case u.Kind == yaml.SequenceNode && (o.Kind == yaml.SequenceNode && len(o.Content) > 0 || o.Kind != yaml.SequenceNode && !empty(o)):
		m := *u
		m.Line, m.Column, m.Content = o.Line, o.Column, slices.Clone(u.Content)
		for _, item := range items(over) {
			if i := slices.IndexFunc(m.Content, func(n *yaml.Node) bool { return sameItem(n, item) }); i >= 0 && i < len(u.Content) {
				m.Content[i] = item
			} else {
				m.Content = append(m.Content, item)
			}
		}
		d.foreign[&m] = d.foreign[o]
		return &m
	}
	return over
}

// sameItem tells whether an item of a list takes the place of another one: both are the same
// text, or have the same name, path or url.
func sameItem(a, b *yaml.Node) bool {
	a, b = target(a), target(b)
	if a.Kind == yaml.ScalarNode && b.Kind == yaml.ScalarNode {
		return a.Value == b.Value
	}
	for _, key := range []string{"name", "path", "url"} {
		if is := func(n *yaml.Node) string {
			if n.Kind == yaml.ScalarNode && key != "name" {
				return n.Value
			}
			if _, v := lookup(n, key); v != nil {
				return target(v).Value
			}
			return ""
		}; is(a) != "" && is(a) == is(b) {
			return true
		}
	}
	return false
}

// copyOf copies nodes. What is behind an alias is not copied.
func copyOf(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = nil
	for _, child := range n.Content {
		c.Content = append(c.Content, copyOf(child))
	}
	return &c
}

var (
	isParam  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)
	paramRef = regexp.MustCompile(`\$?\$\{param\.([^}\n]*)\}`)
)

// params reads the key params, and puts their values where ${param.NAME} stands. They stand in
// values alone, and in scripts and files' texts where the name is that of a param.
func (d *decoder) params(root *yaml.Node, set map[string]string) {
	values := map[string]string{}
	d.known["params"] = true
	if key, n := lookup(root, "params"); key != nil && !empty(n) {
		d.p.where["params"] = position{n.Line, n.Column}
		d.pairs("params.", n, func(name string, k, v *yaml.Node) {
			switch {
			case !isParam.MatchString(name):
				d.problem(k, "params: %q cannot be the name of a param", name)
			case len(values) == maxParams:
				d.problem(k, "params: there are more than %d", maxParams)
			case empty(v):
				values[name] = ""
			default:
				values[name], _ = value(d, "params."+name, v, parseLine)
			}
		})
	}
	var names []string
	for name := range values {
		names = append(names, name)
	}
	slices.Sort(names)
	for name, text := range set {
		if _, known := values[name]; !known {
			what := "the file has no params"
			if near := hint.Nearest(name, names); near != "" {
				what = fmt.Sprintf("did you mean %q?", near)
			} else if len(names) > 0 {
				what = "there are " + strings.Join(names, ", ")
			}
			d.problem(root, "there is no param %q; %s", name, what)
			continue
		}
		values[name] = text
	}
	d.expand(root, "", values, map[*yaml.Node]bool{})
}

// texts are the keys whose values are not lsub's to read.
var texts = []string{"script", "content", "unless", "provision[]", "files.*"}

func (d *decoder) expand(n *yaml.Node, where string, params map[string]string, seen map[*yaml.Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	switch n.Kind {
	case yaml.AliasNode:
		if n.Alias != nil {
			d.expand(n.Alias, where, params, seen)
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			d.expand(item, where+"[]", params, seen)
		}
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i].Value
			if where == "" && (key == "params" || key == "base") {
				continue
			}
			if path.Base(where) == "files" {
				key = "files.*"
			}
			d.expand(n.Content[i+1], where+"/"+key, params, seen)
		}
	case yaml.ScalarNode:
		if strings.Contains(n.Value, "${param.") {
			d.expandText(n, slices.Contains(texts, path.Base(where)), params)
		}
	}
}

func (d *decoder) expandText(n *yaml.Node, isText bool, params map[string]string) {
	out := paramRef.ReplaceAllStringFunc(n.Value, func(ref string) string {
		name := strings.TrimSuffix(ref[strings.IndexByte(ref, '.')+1:], "}")
		text, known := params[name]
		switch {
		case isText && !known:
			return ref
		case strings.HasPrefix(ref, "$$"):
			return ref[1:]
		case !known:
			d.problem(n, "there is no param %q", name)
		}
		return text
	})
	if len(out) > maxExpanded {
		d.problem(n, "the value becomes longer than %d bytes", maxExpanded)
		return
	}
	if n.Value = out; out != "" && n.Tag == "!!null" {
		n.Tag = "!!str"
	}
}
