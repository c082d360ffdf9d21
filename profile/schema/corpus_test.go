package schema_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/profile/schema"
)

// validate has the schema judge a file, as an editor does.
func validate(t *testing.T, s *jsonschema.Schema, data []byte) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return err
	}
	if doc == nil {
		doc = map[string]any{}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	instance, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(instance)
}

func compile(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schema.JSON))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("profile.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("profile.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCorpus holds the schema to the parser.
func TestCorpus(t *testing.T) {
	s := compile(t)
	for name, want := range map[string]struct{ parser, schema bool }{
		"good": {true, true}, "bad": {false, false}, "beyond": {false, true},
	} {
		corpus, err := txtar.ParseFile("testdata/" + name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		if len(corpus.Files) < 10 {
			t.Fatalf("%s has %d files", name, len(corpus.Files))
		}
		for _, f := range corpus.Files {
			if _, err := profile.Parse(f.Name, f.Data); (err == nil) != want.parser {
				t.Errorf("%s/%s: the parser says %v", name, f.Name, err)
			}
			if err := validate(t, s, f.Data); (err == nil) != want.schema {
				t.Errorf("%s/%s: the schema says %v", name, f.Name, err)
			}
		}
	}
	doc, err := os.ReadFile("../../docs/profile.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, -1) {
		if err := validate(t, s, b[1]); err != nil {
			t.Errorf("the schema refuses the example of docs/profile.md: %v", err)
		}
	}
}
