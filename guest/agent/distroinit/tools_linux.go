package distroinit

import (
	"errors"
	"io/fs"
	"os"
	"path"
)

// linkedTools are commands of lsub's that a distro's users find in their PATH.
var linkedTools = []string{"wslpath"}

// linkTools makes links to them in /usr/local/bin. What the distro has of the same name, there
// or elsewhere, stays and counts. A distro that cannot be written goes without.
func linkTools() {
	root, err := os.OpenRoot("/usr/local/bin")
	if err != nil {
		return
	}
	defer root.Close()
	for _, name := range linkedTools {
		found := false
		for _, dir := range []string{"/usr/bin", "/bin", "/usr/sbin", "/sbin"} {
			_, err := os.Lstat(path.Join(dir, name))
			found = found || !errors.Is(err, fs.ErrNotExist)
		}
		if !found {
			root.Symlink(path.Join(ToolsDir, name), name) // unless something is there
		}
	}
}
