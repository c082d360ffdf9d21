package main

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"text/template"
)

// templates are the manifests for package managers.
//
//go:embed templates
var templates embed.FS

// download is where a release's files are.
const download = homepage + "/releases/download/v"

// asset is an archive, as manifests name it.
type asset struct {
	Target, URL, SHA256, Dir string
}

// writeManifests writes a Homebrew formula, a Scoop manifest and winget's three. Each names the
// archives that are there; one without archives is left out.
func (r *releaser) writeManifests() error {
	assets := map[string]asset{}
	for _, system := range []string{"linux", "darwin", "windows"} {
		for _, arch := range []string{"amd64", "arm64"} {
			t := target{system, arch}
			file := r.archive(t) + t.suffix()
			b, err := os.ReadFile(filepath.Join(r.out, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			assets[system+"_"+arch] = asset{t.os + "/" + t.arch, download + r.version + "/" + file, fmt.Sprintf("%x", sha256.Sum256(b)), r.archive(t)}
		}
	}
	for _, m := range []struct{ file, template string }{
		{"lsub.rb", "homebrew.rb"},
		{"lsub.json", "scoop.json"},
		{"lsub.lsub.yaml", "winget-version.yaml"},
		{"lsub.lsub.installer.yaml", "winget-installer.yaml"},
		{"lsub.lsub.locale.en-US.yaml", "winget-locale.yaml"},
	} {
		wants := "windows_"
		if m.template == "homebrew.rb" {
			wants = "darwin_ linux_"
		}
		if !hasAny(assets, strings.Fields(wants)) {
			continue
		}
		b, err := r.manifest(m.template, assets)
		if err != nil {
			return fmt.Errorf("%s: %w", m.file, err)
		}
		if err := os.WriteFile(filepath.Join(r.out, m.file), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func hasAny(assets map[string]asset, systems []string) bool {
	for name := range assets {
		for _, s := range systems {
			if strings.HasPrefix(name, s) {
				return true
			}
		}
	}
	return false
}

// manifest fills in a template. Values are quoted as JSON, which Ruby and YAML read too.
func (r *releaser) manifest(name string, assets map[string]asset) ([]byte, error) {
	quote := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}
	t, err := template.New(name).Funcs(template.FuncMap{"q": quote, "upper": strings.ToUpper}).ParseFS(templates, "templates/"+name)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{
		"Version": r.version, "Date": r.at.Format("2006-01-02"), "Homepage": homepage, "License": license, "Summary": summary,
		"Description": strings.ReplaceAll(description, "\n", " "), "Download": download, "Assets": assets,
	})
	return b.Bytes(), err
}
