package machine

// syncDir does nothing: Windows has no such call for a folder, and NTFS keeps
// a journal of renames.
func syncDir(string) {}
