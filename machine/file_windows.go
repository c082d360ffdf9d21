package machine

import "os"

// syncDir does nothing: Windows has no such call for a folder, and NTFS keeps
// a journal of renames.
func syncDir(string) {}

// allocated is the size of a file: what a sparse one takes of the disk has no
// place in FileInfo.
func allocated(fi os.FileInfo) int64 { return fi.Size() }
