package distro

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
)

// Destination is where an export goes: see [ToFile], [ToWriter] and [ToRegistry].
type Destination struct {
	format    images.Format
	path      string     // of the file or directory
	layoutDir bool       // an OCI layout as a directory
	w         io.Writer  // nil elsewhere
	ref       images.Ref // in a registry, where Source is set
}

// ToFile returns a destination in the file system: a file, which is there only when it is
// whole and replaces one of the same name; or for an OCI layout whose name has no ending
// of a file, a new directory. Where format is "", the name's ending says it. It refuses
// what cannot be, before anything is started.
func ToFile(name string, format images.Format) (Destination, error) {
	if err := checkFormat(format); err != nil {
		return Destination{}, err
	}
	bad := func(text, advice string, args ...any) (Destination, error) {
		return Destination{}, hint.New(fmt.Errorf(text, args...), advice)
	}
	switch {
	case name == "":
		return bad("the name of the file is empty", "see 'lsub export --help'")
	case format == "":
		if format = images.FormatOf(name); format == "" {
			return bad("the name %s does not say what format to write", "give --format: it is "+FormatNames(), name)
		}
	}
	if ending := images.FormatOf(name); format == images.FormatOCI && ending != "" && ending != images.FormatTar {
		return bad("an OCI layout is no %s", "choose the name of a new folder, or of a file that ends with .tar", ending)
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return Destination{}, err
	}
	d := Destination{path: path, format: format, layoutDir: format == images.FormatOCI && images.FormatOf(name) == ""}
	info, err := os.Stat(path)
	switch {
	case err == nil && d.layoutDir:
		return bad("%s is there already", "choose the name of a new folder, or of a file that ends with .tar", name)
	case err == nil && info.IsDir():
		return bad("%s is a folder", "give the name of a file in it", name)
	case err == nil && info.Mode()&fs.ModeType == fs.ModeDevice:
		return bad("%s is a disk, which an archive would overwrite", "give the name of a file", name)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return Destination{}, err
	}
	if info, err := os.Stat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		return bad("there is no folder %s", "make it, or check the path", filepath.Dir(name))
	} else if err != nil {
		return Destination{}, err
	} else if !info.IsDir() {
		return bad("%s is no folder", "check the path", filepath.Dir(name))
	}
	return d, nil
}

// ToWriter returns a destination for an archive that is written from its first byte to
// its last, and may be cut off. Where format is "", it is a plain tar archive.
func ToWriter(w io.Writer, format images.Format) (Destination, error) {
	if err := checkFormat(format); err != nil {
		return Destination{}, err
	}
	switch format {
	case "":
		format = images.FormatTar
	case images.FormatOCI:
		return Destination{}, hint.New(errors.New("an OCI layout does not go to stdout"), "give a file or a folder")
	}
	return Destination{w: w, format: format}, nil
}

// RegistryOptions say how to speak with a registry.
type RegistryOptions struct {
	Insecure bool // see [images.Ref.AllowInsecure]
}

// ToRegistry returns a destination in a registry: REGISTRY/REPOSITORY:TAG.
func ToRegistry(name string, format images.Format, o RegistryOptions) (Destination, error) {
	if err := checkFormat(format); err != nil {
		return Destination{}, err
	}
	if format != "" && format != images.FormatOCI {
		return Destination{}, hint.New(fmt.Errorf("a registry takes no %s", format), "leave --format out")
	}
	ref, err := images.PushRef(name)
	if err == nil && o.Insecure {
		ref, err = ref.AllowInsecure()
	}
	return Destination{ref: ref, format: images.FormatOCI}, err
}

func checkFormat(format images.Format) error {
	if format != "" && !slices.Contains(images.Formats, format) {
		return hint.New(fmt.Errorf("unknown format %q", string(format)), "it is "+FormatNames())
	}
	return nil
}

// FormatNames lists the formats of exports, for people.
func FormatNames() string {
	var names []string
	for _, f := range images.Formats {
		names = append(names, string(f))
	}
	return strings.Join(names[:len(names)-1], ", ") + " or " + names[len(names)-1]
}
