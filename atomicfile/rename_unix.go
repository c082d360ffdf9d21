//go:build unix

package atomicfile

import "os"

func renameOver(from, to string) error { return os.Rename(from, to) }

// Read reads a file that Write may be replacing.
func Read(path string) ([]byte, error) { return os.ReadFile(path) }
