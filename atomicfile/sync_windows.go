package atomicfile

// syncDir does nothing: Windows has no such call for a directory, and NTFS keeps
// a journal of renames.
func syncDir(string) {}
