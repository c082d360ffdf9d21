package schema_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/invopop/jsonschema"

	"github.com/lsub/lsub/profile/schema"
)

var update = flag.Bool("update", false, "write the schema and the table of docs/profile.md anew")

const (
	size    = `\d+(\.\d*)?\s*([kKmMgGtT]([iI]?[bB])?|[bB])?`
	percent = `([1-9]\d?|100)%`
	seconds = `([0-9.]+(ns|us|µs|ms|s|m|h))+`
	port    = `([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d{2}|655[0-2]\d|6553[0-5])`
	ports   = port + `(-` + port + `)?`
	onHost  = `(/|~/|\$|[A-Za-z]:[\\/]|\\\\)`
)

// text returns the schema of a text that matches a pattern as a whole.
func text(pattern string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", Pattern: "^" + pattern + "$"}
}

func number(least, most string) *jsonschema.Schema {
	return &jsonschema.Schema{Type: "integer", Minimum: json.Number(least), Maximum: json.Number(most)}
}

func oneOf(words ...any) *jsonschema.Schema { return &jsonschema.Schema{Enum: words} }

func either(schemas ...*jsonschema.Schema) *jsonschema.Schema {
	return &jsonschema.Schema{AnyOf: schemas}
}

// scalar is any single value: a file's text, a variable.
func scalar(pattern string) *jsonschema.Schema {
	return either(&jsonschema.Schema{Type: "string", Pattern: pattern}, &jsonschema.Schema{Type: "number"}, &jsonschema.Schema{Type: "boolean"})
}

// param is a value that params make.
const param = `\$\{param\.[A-Za-z_][A-Za-z0-9_]*\}`

// flat returns the schemas of which one is enough.
func flat(s *jsonschema.Schema) []*jsonschema.Schema {
	if s.AnyOf != nil {
		return s.AnyOf
	}
	return []*jsonschema.Schema{s}
}

const oneLine = `^[^\n\r\x00]*$`

// kinds are the schemas of the single values.
var kinds = map[reflect.Type]func() *jsonschema.Schema{
	reflect.TypeFor[schema.Memory](): func() *jsonschema.Schema {
		return either(number("1048576", "4611686018427387903"), text(size), text(percent))
	},
	reflect.TypeFor[schema.SizeLimit](): func() *jsonschema.Schema {
		return either(number("16777216", "4611686018427387903"), text(size), text(`[nN][oO][nN][eE]`))
	},
	reflect.TypeFor[schema.CPULimit](): func() *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "number", Minimum: "0.01", Maximum: "1000000"}, text(`\d+(\.\d+)?`), text(`[nN][oO][nN][eE]`))
	},
	reflect.TypeFor[schema.CountLimit](): func() *jsonschema.Schema {
		return either(number("16", "2147483647"), text(`\d+`), text(`[nN][oO][nN][eE]`))
	},
	reflect.TypeFor[schema.Processors](): func() *jsonschema.Schema { return either(number("1", "1000000"), text(`[1-9]\d*`), text(percent)) },
	reflect.TypeFor[schema.Bool](): func() *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "boolean"}, text(`([tT][rR][uU][eE]|[yY][eE][sS]|[oO][nN]|[fF][aA][lL][sS][eE]|[nN][oO]|[oO][fF][fF])`))
	},
	reflect.TypeFor[schema.Time]():       func() *jsonschema.Schema { return text(seconds) },
	reflect.TypeFor[schema.IdleTime]():   func() *jsonschema.Schema { return either(text(seconds), oneOf("never")) },
	reflect.TypeFor[schema.DistroIdle](): func() *jsonschema.Schema { return either(text(seconds), oneOf("never", "default")) },
	reflect.TypeFor[schema.Digest]():     func() *jsonschema.Schema { return text(`[0-9a-f]{64}`) },
	reflect.TypeFor[schema.HTTPS]():      func() *jsonschema.Schema { return text(`https://[^/?#@\s]+(/[^?#\s]*)?`) },
	reflect.TypeFor[schema.HostPath]():   func() *jsonschema.Schema { return text(onHost + `[^\n\x00]*`) },
	reflect.TypeFor[schema.HostFile]():   func() *jsonschema.Schema { return text(`[^\n\r\x00]+`) },
	reflect.TypeFor[schema.GuestPath]():  func() *jsonschema.Schema { return text(`(~?/)[^\n\r\x00]+`) },
	reflect.TypeFor[schema.Address](): func() *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "string", Format: "ipv4"}, &jsonschema.Schema{Type: "string", Format: "ipv6"}, oneOf("localhost"))
	},
	reflect.TypeFor[schema.Server](): func() *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "string", Format: "ipv4"}, &jsonschema.Schema{Type: "string", Format: "ipv6"}, text(`[0-9.]+:`+port), text(`\[[0-9a-fA-F:.]+\]:`+port))
	},
	reflect.TypeFor[schema.Subnet](): func() *jsonschema.Schema { return text(`\d+\.\d+\.\d+\.\d+/(1[6-9]|2[0-8])`) },
	reflect.TypeFor[schema.Domain](): func() *jsonschema.Schema {
		return text(`[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?`)
	},
	reflect.TypeFor[schema.ProxyURL](): func() *jsonschema.Schema {
		return text(`((http|https|socks4|socks4a|socks5|socks5h)://)?[^/:\s]+(:[^/\s]*)?(/.*)?`)
	},
	reflect.TypeFor[schema.PortRange](): func() *jsonschema.Schema {
		return either(number("1", "65535"), text(ports+`(/([tT][cC][pP]|[uU][dD][pP]|[bB][oO][tT][hH]))?`))
	},
	reflect.TypeFor[schema.Port]():    func() *jsonschema.Schema { return either(number("1", "65535"), text(port)) },
	reflect.TypeFor[schema.Line]():    func() *jsonschema.Schema { return scalar(oneLine) },
	reflect.TypeFor[schema.Text]():    func() *jsonschema.Schema { return scalar(`^[^\x00]*$`) },
	reflect.TypeFor[schema.Account](): func() *jsonschema.Schema { return text(`[a-z][a-z0-9_-]{0,31}`) },
	reflect.TypeFor[schema.Package](): func() *jsonschema.Schema { return text(`[A-Za-z0-9@][A-Za-z0-9+._:@-]{0,127}`) },
	reflect.TypeFor[schema.Owner](): func() *jsonschema.Schema {
		return either(number("0", "4294967295"), text(`[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,31})?`))
	},
	reflect.TypeFor[schema.Mode](): func() *jsonschema.Schema { return either(number("0", "7777"), text(`(0o)?0*[0-7]{1,4}`)) },
	reflect.TypeFor[schema.StepName](): func() *jsonschema.Schema {
		return either(&jsonschema.Schema{Type: "string", Pattern: `^\S([^\x00-\x1f]*\S)?$`}, &jsonschema.Schema{Type: "number"})
	},
	reflect.TypeFor[schema.ProbeURL](): func() *jsonschema.Schema { return text(`http://(localhost|127\.0\.0\.1)(:\d+)?([/?#].*)?`) },
	reflect.TypeFor[schema.Image]():    func() *jsonschema.Schema { return text(`[^\x00-\x20\x7f]{1,512}`) },
}

// shorts are what may stand for the keys of a definition.
var shorts = map[string]func() *jsonschema.Schema{
	"Base":      func() *jsonschema.Schema { return text(`(template:.+|[^:\n\r]+)`) },
	"Catalogue": kinds[reflect.TypeFor[schema.HTTPS]()],
	"Mount": func() *jsonschema.Schema {
		return either(text(onHost+`[^\n\x00]*`), oneOf("~"), &jsonschema.Schema{Type: "null"})
	},
	"Rule":       func() *jsonschema.Schema { return text(`[^\n>]+(->|→)[^\n]+`) },
	"SocketRule": func() *jsonschema.Schema { return text(`[^\n>]+(->|→)[^\n]+`) },
	"Proxy":      func() *jsonschema.Schema { return oneOf("auto", "off", "no", false) },
	"File":       kinds[reflect.TypeFor[schema.Text]()],
	"Step":       kinds[reflect.TypeFor[schema.Text]()],
}

// generate makes the schema of the types and their comments.
func generate(t *testing.T) *jsonschema.Schema {
	t.Helper()
	r := &jsonschema.Reflector{ExpandedStruct: true, Mapper: func(t reflect.Type) *jsonschema.Schema {
		if kind := kinds[t]; kind != nil {
			return either(append(flat(kind()), &jsonschema.Schema{Type: "string", Pattern: param})...)
		}
		return nil
	}}
	if err := r.AddGoComments("github.com/lsub/lsub/profile/schema", "."); err != nil {
		t.Fatal(err)
	}
	for key, comment := range r.CommentMap {
		r.CommentMap[key] = strings.Join(strings.Fields(comment), " ")
	}
	s := r.Reflect(&schema.Profile{})
	s.ID, s.Title = "", "A profile of lsub: a VM and its distros"
	loosen(s)
	for name, d := range s.Definitions {
		loosen(d)
		if name == "Step" { // just one of two
			d.OneOf = []*jsonschema.Schema{{Required: []string{"script"}}, {Required: []string{"file"}}}
		}
		if name == "Probe" {
			d.OneOf = []*jsonschema.Schema{{Required: []string{"script"}}, {Required: []string{"port"}}, {Required: []string{"http"}}}
		}
		if name == "File" {
			d.Not = &jsonschema.Schema{Required: []string{"content", "source"}}
		}
		if key := map[string]string{"Catalogue": "url", "Mount": "path", "Base": "url"}[name]; key != "" {
			d.Required = []string{key}
		}
		if name == "Base" {
			d.Required = append(d.Required, "sha256")
		}
		if name == "Rule" || name == "SocketRule" {
			d.Required = []string{"from", "to"}
		}
		if short := shorts[name]; short != nil {
			s.Definitions[name] = &jsonschema.Schema{Description: d.Description, AnyOf: []*jsonschema.Schema{short(), d}}
			d.Description = ""
		}
	}
	name := `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`
	keys := map[string]string{"params": `^[A-Za-z_][A-Za-z0-9_]{0,63}$`, "distros": name, "environment": `^[A-Za-z_][A-Za-z0-9_]{0,127}$`, "files": `^~?/[^\n\r\x00]*[^/\n\r\x00]$`}
	for _, d := range append([]*jsonschema.Schema{s}, s.Definitions["Distro"]) {
		for pair := d.Properties.Oldest(); pair != nil; pair = pair.Next() {
			if pattern := keys[pair.Key]; pattern != "" {
				pair.Value.AnyOf[0].PropertyNames = &jsonschema.Schema{Pattern: pattern}
			}
		}
	}
	return s
}

// loosen has each key take nothing for its default, and a list one value for a list of it.
func loosen(s *jsonschema.Schema) {
	if s.Properties == nil {
		return
	}
	null := &jsonschema.Schema{Type: "null"}
	for pair := s.Properties.Oldest(); pair != nil; pair = pair.Next() {
		v := pair.Value
		comment := v.Description
		v.Description = ""
		all := []*jsonschema.Schema{v, null}
		if len(v.Enum) > 0 {
			all = append(all, &jsonschema.Schema{Type: "string", Pattern: param})
		}
		if len(v.Enum) > 0 && pair.Key == "autostart" {
			v.Type, v.Enum = "", append(v.Enum, "no", false)
		}
		if v.Type == "array" {
			all = []*jsonschema.Schema{v, v.Items, null}
		}
		if v.Type == "object" && v.AdditionalProperties != nil {
			inner := *v.AdditionalProperties
			values := []*jsonschema.Schema{&inner, null}
			if pair.Key == "hosts" {
				values = []*jsonschema.Schema{&inner, inner.Items}
			}
			v.AdditionalProperties = &jsonschema.Schema{AnyOf: values}
		}
		pair.Value = &jsonschema.Schema{Description: comment, AnyOf: all}
	}
}

func TestSchema(t *testing.T) {
	s := generate(t)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		t.Fatal(err)
	}
	same(t, "profile.schema.json", func([]byte) []byte { return b.Bytes() })
	same(t, "../../docs/profile.md", func(doc []byte) []byte {
		const begin, end = "<!-- keys -->\n", "<!-- /keys -->\n"
		before, rest, ok := strings.Cut(string(doc), begin)
		_, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("docs/profile.md has no place for the table")
		}
		return []byte(before + begin + table(s) + end + after)
	})
}

// same compares a file with what it is to be, or writes it.
func same(t *testing.T, file string, want func([]byte) []byte) {
	t.Helper()
	has, err := os.ReadFile(file)
	if err != nil && !*update {
		t.Fatal(err)
	}
	text := want(has)
	if bytes.Equal(has, text) {
		return
	}
	if !*update {
		t.Fatalf("%s is not what the types say; 'go test ./profile/schema -update' writes it", file)
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// table is the keys with what they mean.
func table(s *jsonschema.Schema) string {
	var b strings.Builder
	b.WriteString("| key | meaning |\n|---|---|\n")
	var walk func(path string, d *jsonschema.Schema)
	walk = func(path string, d *jsonschema.Schema) {
		for pair := d.Properties.Oldest(); pair != nil; pair = pair.Next() {
			key := path + pair.Key
			v := pair.Value.AnyOf[0]
			inner := v
			switch {
			case v.Type == "array":
				inner, key = v.Items, key+"[]"
			case v.AdditionalProperties != nil:
				inner, key = v.AdditionalProperties.AnyOf[0], key+".NAME"
			}
			words := ""
			for _, word := range v.Enum {
				if text, ok := word.(string); ok && text != "no" {
					words += "`" + text + "`, "
				}
			}
			if words != "" {
				words = strings.TrimSuffix(words, ", ") + ". "
			}
			fmt.Fprintf(&b, "| `%s` | %s%s |\n", key, words, strings.ReplaceAll(pair.Value.Description, "|", "\\|"))
			if _, name, ok := strings.Cut(inner.Ref, "#/$defs/"); ok {
				of := s.Definitions[name]
				if of.Properties == nil {
					of = of.AnyOf[1]
				}
				walk(key+".", of)
			}
		}
	}
	walk("", s)
	return b.String()
}
