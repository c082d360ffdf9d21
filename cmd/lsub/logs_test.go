package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestLogFile follows a log that comes late, is put aside and is emptied.
func TestLogFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l := &logFile{path: path}
	defer l.close()
	write := func(text string, flags int) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|flags, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	wants := func(want string) {
		t.Helper()
		var got bytes.Buffer
		if err := l.copy(&got); err != nil || got.String() != want {
			t.Errorf("%q, %v; want %q", &got, err, want)
		}
	}
	wants("")
	write("one\n", 0)
	wants("one\n")
	write("two\n", os.O_APPEND)
	wants("two\n")
	wants("")
	write("1\n", os.O_TRUNC)
	wants("1\n")
	if err := os.Rename(path, path+".old"); err != nil {
		t.Skip("open files cannot be renamed here:", err)
	}
	wants("")
	write("new boot\n", 0)
	wants("new boot\n")
}
