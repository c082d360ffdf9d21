package converge

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

// maxContent is the most bytes of a file or a script.
const maxContent = 256 << 20

// contents is what a distro is to have, with the files of the host that the profile names.
type contents struct {
	files []content
	steps []content
	sum   string // of all that the profile says of the distro
}

// content is what a file or a step has.
type content struct {
	data []byte
	sum  string // SHA-256 in hex
}

// read reads what the profile names for a distro.
func (u *up) read(name string, d profile.Distro) (contents, error) {
	var all contents
	h := sha256.New()
	for _, f := range d.Files {
		c, err := u.content(f.Source, f.Content, f.At)
		if err != nil {
			return all, err
		}
		all.files = append(all.files, c)
		io.WriteString(h, c.sum)
	}
	for _, s := range d.Provision {
		c, err := u.content(s.File, s.Script, s.At)
		if err != nil {
			return all, err
		}
		if bytes.Contains(c.data, []byte("\r\n")) {
			u.tell(Event{Type: Note, Distro: name, Kind: KindStep, Name: s.Name,
				Text: s.At + ": its script has Windows line ends (CR LF), and reaches the distro so: shells take the CR as part of the line"})
		}
		c.sum = sumOf([]byte(s.Mode), c.data)
		all.steps = append(all.steps, c)
		io.WriteString(h, c.sum)
	}
	b, err := json.Marshal(d)
	if err != nil {
		return all, err
	}
	h.Write(b)
	all.sum = hex.EncodeToString(h.Sum(nil))
	return all, nil
}

// content reads a file of the host, or returns text where no file is named.
func (u *up) content(file, text, at string) (content, error) {
	if file == "" {
		return content{[]byte(text), sumOf([]byte(text))}, nil
	}
	path, err := profile.HostFile(file, u.cfg.Dir, u.cfg.Home, u.cfg.Getenv)
	if err != nil {
		return content{}, fmt.Errorf("%s: %w", at, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return content{}, hint.New(fmt.Errorf("%s: %w", at, err), "a relative path starts at the folder of the profile's file")
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New(path + " is no file")
	}
	if err != nil {
		return content{}, fmt.Errorf("%s: %w", at, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err == nil && len(data) > maxContent {
		err = fmt.Errorf("%s has more than %d bytes", path, maxContent)
	}
	if err != nil {
		return content{}, fmt.Errorf("%s: %w", at, err)
	}
	return content{data, sumOf(data)}, nil
}

// sumOf returns the SHA-256 of parts that are kept apart.
func sumOf(parts ...[]byte) string {
	h := sha256.New()
	if len(parts) == 1 {
		h.Write(parts[0])
	} else {
		for _, p := range parts {
			fmt.Fprintf(h, "%d:", len(p))
			h.Write(p)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}
