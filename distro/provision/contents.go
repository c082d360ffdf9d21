package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
)

// maxContent is the most bytes of a file or a script.
const maxContent = 256 << 20

// Content is what a file or a step has.
type Content struct {
	Data []byte
	Sum  string // SHA-256 of Data in hex
}

// Host is where files of the host are that a profile names.
type Host struct {
	Dir    string // relative paths start there
	Home   string // of the user
	Getenv func(string) string
}

// Steps reads the scripts of the steps for which want is true; nil is all. The others have none.
func (h Host) Steps(steps []profile.Step, want func(profile.Step) bool) ([]Content, error) {
	has := make([]Content, len(steps))
	for i, s := range steps {
		if want != nil && !want(s) {
			continue
		}
		var err error
		if has[i], err = h.Read(s.File, s.Script, s.At); err != nil {
			return nil, err
		}
	}
	return has, nil
}

// Read reads a file, or returns text where none is named. at says where the profile names it.
func (h Host) Read(file, text, at string) (Content, error) {
	if file == "" {
		return Content{[]byte(text), SumOf([]byte(text))}, nil
	}
	path, err := profile.HostFile(file, h.Dir, h.Home, h.Getenv)
	if err != nil {
		return Content{}, fmt.Errorf("%s: %w", at, err)
	}
	f, err := os.Open(path)
	if err != nil {
		return Content{}, hint.New(fmt.Errorf("%s: %w", at, err), "a relative path starts at the folder of the profile's file")
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New(path + " is no file")
	}
	if err != nil {
		return Content{}, fmt.Errorf("%s: %w", at, err)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxContent+1))
	if err == nil && len(data) > maxContent {
		err = fmt.Errorf("%s has more than %d bytes", path, maxContent)
	}
	if err != nil {
		return Content{}, fmt.Errorf("%s: %w", at, err)
	}
	return Content{data, SumOf(data)}, nil
}

// SumOf returns the SHA-256 of parts that are kept apart, in hex.
func SumOf(parts ...[]byte) string {
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
