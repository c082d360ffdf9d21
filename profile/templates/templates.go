// Package templates has the profiles that come with lsub. A file builds on one with
// 'base: template:NAME', and 'lsub profile new --template NAME' writes one.
package templates

import (
	"embed"
	"strings"
)

//go:embed *.yaml
var files embed.FS

// Names returns the templates, in alphabetical order.
func Names() []string {
	entries, err := files.ReadDir(".")
	if err != nil {
		panic(err) // they are in the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

// Read returns the file of a template; ok is false where there is none.
func Read(name string) (data []byte, ok bool) {
	data, err := files.ReadFile(name + ".yaml")
	return data, err == nil
}

// About returns the first comment of a template without its sign.
func About(data []byte) string {
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimPrefix(line, "# ")
}
