package machine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
)

// writeJSON replaces a file with v: whoever reads it, and whatever crashes,
// sees the old or the new one.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// readJSON reads a file that writeJSON wrote, maybe of another version of
// lsub: keys that v does not have are warned of by file and line, and skipped.
// A file that is no JSON, or of a later format than version, is an error.
func readJSON(path string, version int, v any, log *slog.Logger) error {
	b, err := atomicfile.Read(path)
	if err != nil {
		return err
	}
	var head struct {
		Version int `json:"version"`
	}
	json.Unmarshal(b, &head) // the next line says what is wrong
	if err := json.Unmarshal(b, v); err != nil && head.Version <= version {
		return fmt.Errorf("%s:%d: %w", path, lineOf(b, err), err)
	}
	if head.Version > version {
		return hint.New(fmt.Errorf("%s: format %d is newer than this lsub", path, head.Version), "install the newer lsub again")
	}
	unknownKeys(json.NewDecoder(bytes.NewReader(b)), reflect.TypeOf(v), func(key string, offset int64) {
		log.Warn("unknown key in a state file", "file", fmt.Sprintf("%s:%d", path, line(b, offset)), "key", key)
	})
	return nil
}

func lineOf(b []byte, err error) int {
	var syntax *json.SyntaxError
	var typ *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return line(b, syntax.Offset)
	case errors.As(err, &typ):
		return line(b, typ.Offset)
	}
	return 1
}

func line(b []byte, offset int64) int {
	return 1 + bytes.Count(b[:min(int(offset), len(b))], []byte{'\n'})
}

// unknownKeys reads one JSON value, which is known to be well formed, and
// reports the keys of objects that have no field in t.
func unknownKeys(d *json.Decoder, t reflect.Type, report func(key string, offset int64)) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	tok, err := d.Token()
	if err != nil {
		return
	}
	switch tok {
	case json.Delim('['):
		var elem reflect.Type
		if t != nil && t.Kind() == reflect.Slice {
			elem = t.Elem()
		}
		for d.More() {
			unknownKeys(d, elem, report)
		}
		d.Token()
	case json.Delim('{'):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return
			}
			name, _ := key.(string)
			field, known := fieldOf(t, name)
			if !known {
				report(name, d.InputOffset())
			}
			unknownKeys(d, field, report)
		}
		d.Token()
	}
}

// fieldOf returns the type of a key's value, nil where nothing is known of it.
func fieldOf(t reflect.Type, key string) (reflect.Type, bool) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil, true
	}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if strings.EqualFold(name, key) { // as encoding/json matches them
			return f.Type, true
		}
	}
	return nil, false
}
