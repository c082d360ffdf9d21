package main

// newLoginItems calls Windows' own program.
func newLoginItems() (loginItems, error) {
	return taskLogin{func(args ...string) error { return runTool("schtasks.exe", args...) }}, nil
}
