package transfer

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/rootfs/pax"
)

// copyTo copies sources to dest as two sides do it, and returns what was noted.
func copyTo(t *testing.T, o SendOptions, dest string) (notes []string, err error) {
	t.Helper()
	data, dataW := io.Pipe()
	have, haveW := io.Pipe()
	var sent error
	done := make(chan struct{})
	o.Note = func(s string) { notes = append(notes, s) }
	go func() {
		defer close(done)
		_, sent = Send(context.Background(), dataW, have, o)
		dataW.CloseWithError(sent)
	}()
	var got []string
	_, err = Receive(t.Context(), data, haveW, ReceiveOptions{Dest: dest, Note: func(s string) { got = append(got, s) }})
	data.CloseWithError(err)
	haveW.Close()
	<-done
	if sent != nil && !errors.Is(sent, err) {
		err = sent
	}
	return append(notes, got...), err
}

// tree writes files by name; a name that ends in a slash is a directory, and a content that
// begins with "-> " a link.
func tree(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		full := filepath.Join(dir, name)
		os.MkdirAll(filepath.Dir(full), 0o755)
		var err error
		if to, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(to, full)
		} else if strings.HasSuffix(name, "/") {
			err = os.MkdirAll(full, 0o755)
		} else {
			err = os.WriteFile(full, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// look describes a tree: names, types, permissions, times and contents.
func look(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, name)
		switch {
		case e.Type() == fs.ModeSymlink:
			to, _ := os.Readlink(name)
			fmt.Fprintf(&b, "%s -> %s\n", rel, to)
		case e.IsDir():
			fmt.Fprintf(&b, "%s %v %d\n", rel, info.Mode(), info.ModTime().UnixNano())
		default:
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "%s %v %d %d %.40q\n", rel, info.Mode(), info.ModTime().UnixNano(), len(content), content)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTree(t *testing.T) {
	dir := t.TempDir()
	src := filepath.Join(dir, "src")
	files := map[string]string{"a": "1", "sub/b": strings.Repeat("x", 1<<20), "sub/deep/c": "", "empty/": "", "link": "-> sub/b", "dangling": "-> ../nowhere", "sub/späce é": "u"}
	for i := range 300 {
		files[fmt.Sprintf("many/%d", i)] = fmt.Sprint(i)
	}
	tree(t, src, files)
	os.Chmod(filepath.Join(src, "a"), 0o751)
	os.Chmod(filepath.Join(src, "sub/deep"), 0o500)
	t.Cleanup(func() {
		os.Chmod(filepath.Join(src, "sub/deep"), 0o700)
		os.Chmod(filepath.Join(dir, "new/sub/deep"), 0o700)
		os.Chmod(filepath.Join(dir, "into/src/sub/deep"), 0o700)
		os.Chmod(filepath.Join(dir, "content/sub/deep"), 0o700)
	})
	old := time.Unix(1e9, 123456000)
	for _, name := range []string{"a", "sub", "many/7", "empty"} {
		os.Chtimes(filepath.Join(src, name), old, old)
	}
	os.Link(filepath.Join(src, "a"), filepath.Join(src, "sub/same"))
	os.Chtimes(filepath.Join(src, "sub"), old, old)
	want := look(t, src)
	os.Mkdir(filepath.Join(dir, "into"), 0o755)
	for _, c := range []struct{ from, dest, at string }{
		{src, "new", "new"}, {src, "into", "into/src"}, {src + "/.", "content", "content"},
		{src, "new2/", "new2"}, {src + "/.", "into/src", "into/src"},
	} {
		notes, err := copyTo(t, SendOptions{Sources: []string{c.from}}, filepath.Join(dir, c.dest)+c.dest[len(strings.TrimSuffix(c.dest, "/")):])
		if err != nil || len(notes) > 0 {
			t.Fatalf("%s to %s: %v, %q", c.from, c.dest, err, notes)
		}
		got := look(t, filepath.Join(dir, c.at))
		if strings.HasSuffix(c.from, "/.") { // the directory itself is the receiver's own
			_, got, _ = strings.Cut(got, "\n")
			if _, rest, _ := strings.Cut(want, "\n"); got != rest {
				t.Errorf("%s to %s is\n%s\nwant\n%s", c.from, c.dest, got, rest)
			}
		} else if got != want {
			t.Errorf("%s to %s is\n%s\nwant\n%s", c.from, c.dest, got, want)
		}
		one, _ := os.Stat(filepath.Join(dir, c.at, "a"))
		two, _ := os.Stat(filepath.Join(dir, c.at, "sub/same"))
		if !os.SameFile(one, two) {
			t.Errorf("%s: two names of one file are two files", c.dest)
		}
	}
	os.Chmod(filepath.Join(dir, "new2/sub/deep"), 0o700)
}

func TestPlaces(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, map[string]string{"f": "f", "g": "g", "d/x": "x", "old": "old", "tofile": "-> old"})
	at := func(s string) string { return dir + "/" + s }
	for _, c := range []struct {
		from     []string
		to, want string // the file that is made, or the error
	}{
		{[]string{"f"}, "f2", "f2"}, {[]string{"f"}, "d", "d/f"}, {[]string{"f"}, "old", "old"}, {[]string{"f", "g"}, "d/", "d/g"},
		{[]string{"tofile"}, "f3", "f3"},
		{[]string{"f"}, "none/", "error: there is no folder"}, {[]string{"f"}, "none/x", "error: there is no folder"},
		{[]string{"f", "g"}, "none", "error: there is no folder"}, {[]string{"d"}, "old", "error: "}, {[]string{"f"}, "old/", "error: "},
		{[]string{"none"}, "x", "error: "}, {[]string{"f", "d/../f"}, "d", "error: two of the sources have the name f"},
	} {
		var from []string
		for _, f := range c.from {
			from = append(from, at(f))
		}
		_, err := copyTo(t, SendOptions{Sources: from}, at(c.to))
		if text, bad := strings.CutPrefix(c.want, "error: "); bad {
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v to %s: %v, want %s", c.from, c.to, err, text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%v to %s: %v", c.from, c.to, err)
		} else if info, err := os.Lstat(at(c.want)); err != nil || !info.Mode().IsRegular() {
			t.Errorf("%v to %s: %v, %v", c.from, c.to, info, err)
		}
	}
	if parts, _ := filepath.Glob(at("*/" + partPrefix + "*")); parts != nil {
		t.Errorf("left: %v", parts)
	}
}

// A copy that breaks off leaves no half file under its name, and the next one goes on with
// what is there.
func TestResume(t *testing.T) {
	dir := t.TempDir()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MiB
	tree(t, dir, map[string]string{"src/a": "done", "src/b": string(big), "src/c": "later"})
	var archive bytes.Buffer
	if _, err := Send(t.Context(), &archive, nil, SendOptions{Sources: []string{dir + "/src"}}); err != nil {
		t.Fatal(err)
	}
	cut := bytes.NewReader(archive.Bytes()[:3<<20])
	if _, err := Receive(t.Context(), cut, nil, ReceiveOptions{Dest: dir + "/dst"}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("a stream that is cut off gives %v", err)
	}
	if _, err := os.Stat(dir + "/dst"); !os.IsNotExist(err) {
		t.Errorf("half a tree has its name: %v", err)
	}
	parts, _ := filepath.Glob(dir + "/" + dirPart("dst") + "/" + partPrefix + "*")
	if len(parts) != 1 {
		t.Fatalf("parts: %v", parts)
	}
	done, _ := os.Stat(dir + "/" + dirPart("dst") + "/a")

	again := countingTransfer(t, SendOptions{Sources: []string{dir + "/src"}, Resume: true}, dir+"/dst")
	if again > 2<<20 {
		t.Errorf("going on took %d bytes", again)
	}
	if got, err := os.ReadFile(dir + "/dst/b"); err != nil || !bytes.Equal(got, big) {
		t.Errorf("b has %d bytes: %v", len(got), err)
	}
	if now, _ := os.Stat(dir + "/dst/a"); !os.SameFile(done, now) {
		t.Error("a file that was whole was sent again")
	}
	if parts, _ := filepath.Glob(dir + "/dst/" + partPrefix + "*"); len(parts) > 0 {
		t.Errorf("left: %v", parts)
	}

	// In a folder that is there, by file.
	os.RemoveAll(dir + "/dst")
	os.Mkdir(dir+"/dst", 0o755)
	archive.Reset()
	Send(t.Context(), &archive, nil, SendOptions{Sources: []string{dir + "/src/."}})
	Receive(t.Context(), bytes.NewReader(archive.Bytes()[:3<<20]), nil, ReceiveOptions{Dest: dir + "/dst"})
	if _, err := os.Stat(dir + "/dst/b"); !os.IsNotExist(err) {
		t.Errorf("half a file has its name: %v", err)
	}
	if n := countingTransfer(t, SendOptions{Sources: []string{dir + "/src/."}, Resume: true}, dir+"/dst"); n > 2<<20 {
		t.Errorf("going on in a folder took %d bytes", n)
	}

	// A file of its own, under another name.
	archive.Reset()
	Send(t.Context(), &archive, nil, SendOptions{Sources: []string{dir + "/src/b"}})
	Receive(t.Context(), bytes.NewReader(archive.Bytes()[:3<<20]), nil, ReceiveOptions{Dest: dir + "/other"})
	if n := countingTransfer(t, SendOptions{Sources: []string{dir + "/src/b"}, Resume: true}, dir+"/other"); n > 2<<20 {
		t.Errorf("going on under another name took %d bytes", n)
	}
	// A source that has changed is sent anew.
	Receive(t.Context(), bytes.NewReader(archive.Bytes()[:3<<20]), nil, ReceiveOptions{Dest: dir + "/third"})
	os.WriteFile(dir+"/src/b", bytes.Repeat([]byte("X"), len(big)), 0o644)
	countingTransfer(t, SendOptions{Sources: []string{dir + "/src/b"}, Resume: true}, dir+"/third")
	if got, _ := os.ReadFile(dir + "/third"); !bytes.Equal(got, bytes.Repeat([]byte("X"), len(big))) {
		t.Error("a part of an older version was used")
	}
}

// countingTransfer copies to dest, and counts the bytes.
func countingTransfer(t *testing.T, o SendOptions, dest string) (n int64) {
	t.Helper()
	data, dataW := io.Pipe()
	have, haveW := io.Pipe()
	go func() {
		_, err := Send(context.Background(), dataW, have, o)
		dataW.CloseWithError(err)
	}()
	count := &counting{r: data}
	if _, err := Receive(t.Context(), count, haveW, ReceiveOptions{Dest: dest}); err != nil {
		t.Fatal(err)
	}
	return count.n
}

type counting struct {
	r io.Reader
	n int64
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

func TestSparse(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("holes are kept on Linux and macOS, and counted here as Linux does it")
	}
	dir := t.TempDir()
	f, err := os.Create(dir + "/holes")
	if err != nil {
		t.Fatal(err)
	}
	f.WriteAt([]byte("middle"), 64<<20)
	f.Truncate(256 << 20)
	f.Close()
	if n := countingTransfer(t, SendOptions{Sources: []string{dir + "/holes"}}, dir+"/copy"); n > 1<<20 {
		t.Errorf("%d bytes were sent", n)
	}
	a, _ := os.ReadFile(dir + "/holes")
	b, _ := os.ReadFile(dir + "/copy")
	if !bytes.Equal(a, b) {
		t.Error("the copy is another")
	}
	if n := countingTransfer(t, SendOptions{Sources: []string{dir + "/copy"}}, dir+"/copy2"); n > 1<<20 {
		t.Errorf("the copy has no holes: %d bytes", n)
	}
}

func TestRaw(t *testing.T) {
	dir := t.TempDir()
	var wire bytes.Buffer
	if err := SendRaw(&wire, strings.NewReader("hello")); err != nil {
		t.Fatal(err)
	}
	text := wire.Bytes()
	if _, err := Receive(t.Context(), bytes.NewReader(text), nil, ReceiveOptions{Dest: dir + "/f"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(dir + "/f"); string(got) != "hello" {
		t.Errorf("got %q", got)
	}
	for _, dest := range []string{dir, dir + "/none/", dir + "/none/f"} {
		if _, err := Receive(t.Context(), bytes.NewReader(text), nil, ReceiveOptions{Dest: dest}); err == nil {
			t.Errorf("stdin became %s", dest)
		}
	}
	broken := io.MultiReader(bytes.NewReader(text), errReader{})
	if _, err := Receive(t.Context(), broken, nil, ReceiveOptions{Dest: dir + "/f"}); err == nil {
		t.Error("a broken input is taken for a whole one")
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left: %v", list)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	tree(t, dir, map[string]string{"f": "content", "d/x": ""})
	for _, c := range []struct{ source, want string }{{"f", "content"}, {"d", "error"}} {
		var wire, out bytes.Buffer
		if _, err := Send(t.Context(), &wire, nil, SendOptions{Sources: []string{dir + "/" + c.source}}); err != nil {
			t.Fatal(err)
		}
		err := WriteFile(&wire, &out)
		if got := out.String(); (err != nil) != (c.want == "error") || err == nil && got != c.want {
			t.Errorf("%s: %q, %v", c.source, got, err)
		}
	}
}

// A sender that lies reaches nothing beside what was asked for.
func TestHostile(t *testing.T) {
	for name, entries := range map[string][]*tar.Header{
		"a file through a link":      {{Typeflag: tar.TypeDir, Name: "src/"}, {Typeflag: tar.TypeSymlink, Name: "src/l", Linkname: ".."}, {Typeflag: tar.TypeReg, Name: "src/l/precious"}},
		"a directory through a link": {{Typeflag: tar.TypeDir, Name: "src/"}, {Typeflag: tar.TypeSymlink, Name: "src/l", Linkname: ".."}, {Typeflag: tar.TypeDir, Name: "src/l/precious/"}},
		"a link for the directory":   {{Typeflag: tar.TypeSymlink, Name: "src", Linkname: "."}, {Typeflag: tar.TypeReg, Name: "src/precious"}},
		"another name of a file":     {{Typeflag: tar.TypeDir, Name: "src/"}, {Typeflag: tar.TypeSymlink, Name: "src/l", Linkname: ".."}, {Typeflag: tar.TypeLink, Name: "src/x", Linkname: "src/l/precious"}},
		"another top":                {{Typeflag: tar.TypeReg, Name: "precious"}},
		"dots":                       {{Typeflag: tar.TypeReg, Name: "src/../precious"}},
		"the root":                   {{Typeflag: tar.TypeReg, Name: "/precious"}},
		"a device":                   {{Typeflag: tar.TypeChar, Name: "src"}},
		"what was not asked for":     {{Typeflag: tar.TypeReg, Name: "precious"}},
	} {
		names := "[\"src\"]"
		if name == "what was not asked for" {
			names = "[\"precious\"]"
		}
		dir := t.TempDir()
		if err := os.WriteFile(dir+"/precious", []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		wire := []byte("{\"version\":1,\"names\":" + names + ",\"dir\":true}\n")
		for _, h := range entries {
			h.Mode = 0o777
			var err error
			if wire, err = pax.AppendHeader(wire, h, nil); err != nil {
				t.Fatal(err)
			}
		}
		wire = pax.AppendEnd(wire)
		for _, dest := range []string{dir, dir + "/new"} {
			if _, err := Receive(t.Context(), bytes.NewReader(wire), nil, ReceiveOptions{Dest: dest, Names: []string{"src"}}); err == nil {
				t.Errorf("%s: no error", name)
			}
			info, err := os.Lstat(dir + "/precious")
			if got, _ := os.ReadFile(dir + "/precious"); err != nil || string(got) != "mine" || info.Mode() != 0o600 {
				t.Errorf("%s: %v, %q, %v", name, err, got, info)
			}
		}
	}
}

func TestNameOf(t *testing.T) {
	for asked, want := range map[string]string{
		"": "", "/": ".", ".": ".", "a/.": ".", "/etc/": "etc", "/etc": "etc", "~": "", "~/": "", "~/x": "x", "..": "", "a/..": "", "a/../b": "b",
	} {
		if got := NameOf(asked); got != want {
			t.Errorf("%q: %q, want %q", asked, got, want)
		}
	}
}

// FuzzReceive: whatever comes, nothing is made outside the destination.
func FuzzReceive(f *testing.F) {
	dir := f.TempDir()
	os.MkdirAll(dir+"/src/d", 0o755)
	os.WriteFile(dir+"/src/d/f", []byte("x"), 0o644)
	os.Symlink("../../..", dir+"/src/d/l")
	var b bytes.Buffer
	Send(context.Background(), &b, nil, SendOptions{Sources: []string{dir + "/src"}})
	f.Add(b.Bytes())
	f.Add(bytes.ReplaceAll(b.Bytes(), []byte("src/d/f"), []byte("src/../f")))
	f.Add(bytes.ReplaceAll(b.Bytes(), []byte("src/d/l"), []byte("src/d/d")))
	f.Fuzz(func(t *testing.T, wire []byte) {
		if len(wire) > 1<<16 {
			return
		}
		dir := t.TempDir()
		os.Mkdir(dir+"/in", 0o755)
		Receive(t.Context(), bytes.NewReader(wire), io.Discard, ReceiveOptions{Dest: dir + "/in/x"})
		filepath.WalkDir(dir, func(name string, _ fs.DirEntry, _ error) error { os.Chmod(name, 0o700); return nil })
		if list, _ := os.ReadDir(dir); len(list) != 1 {
			t.Fatalf("made outside: %v", list)
		}
		if list, _ := os.ReadDir(dir + "/in"); len(list) > 1 && !strings.HasPrefix(list[0].Name(), partPrefix) {
			t.Fatalf("made beside: %v", list)
		}
	})
}

// FuzzHad: the decoder of what the receiver has never takes more than it may.
func FuzzHad(f *testing.F) {
	f.Add([]byte(`{"n":"a","s":1,"t":2}` + "\n\n"))
	f.Fuzz(func(t *testing.T, wire []byte) {
		all, err := readHad(bufio.NewReader(bytes.NewReader(wire)))
		if err == nil && len(all) > len(wire) {
			t.Fatal("more files than bytes")
		}
	})
}
