package loginitem

import (
	"bytes"
	"encoding/binary"
	"encoding/xml"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"
)

// odd is a path with what some format gives a meaning to. (Quotation marks and
// backslashes are not for systemd's programs.)
const odd = `/opt/a b%n$HOME$d<e>&;f/lsub`

func oddItem() Item {
	args := []string{"--profile=default", "--home=/data/x y%d$HOME", "start", "debian"}
	return Item{ID: "debian-0123456789ab", Name: "debian", User: `PC\me & you`, Program: odd, Args: args, StopArgs: []string{"--profile=default", "shutdown"}}
}

func TestSystemdUnit(t *testing.T) {
	unit := string(oddItem().systemdUnit())
	for _, line := range []string{
		`ExecStart="/opt/a b%%n$HOME$d<e>&;f/lsub" "--profile=default" "--home=/data/x y%%d$$HOME" "start" "debian"`,
		`ExecStop="/opt/a b%%n$HOME$d<e>&;f/lsub" "--profile=default" "shutdown"`,
		"Type=oneshot", "RemainAfterExit=yes", "KillMode=process", "WantedBy=default.target",
	} {
		if !slices.Contains(strings.Split(unit, "\n"), line) {
			t.Errorf("the unit has no line %s:\n%s", line, unit)
		}
	}
}

// TestSystemdVerify has systemd itself read the unit, and find the program.
func TestSystemdVerify(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	item := oddItem()
	item.Program = filepath.Join(t.TempDir(), filepath.Base(filepath.Dir(odd)))
	unit := filepath.Join(t.TempDir(), "lsub-debian.service")
	verify := func() string {
		t.Helper()
		if err := os.WriteFile(unit, item.systemdUnit(), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(analyze, "--user", "--man=no", "verify", unit)
		cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
		out, _ := cmd.CombinedOutput() // what it says counts: it fails for other units too
		return string(out)
	}
	if out := verify(); !strings.Contains(out, "is not executable") {
		t.Skipf("systemd-analyze does not look at programs here: %s", out)
	}
	if err := os.WriteFile(item.Program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out := verify(); strings.Contains(out, filepath.Base(unit)) {
		t.Error(out)
	}
}

func TestLaunchdAgent(t *testing.T) {
	var plist struct {
		Dict struct {
			Keys    []string `xml:"key"`
			Strings []string `xml:"string"`
			Args    []string `xml:"array>string"`
			True    []string `xml:"true"`
		} `xml:"dict"`
	}
	item := oddItem()
	if err := xml.Unmarshal(item.launchdAgent(), &plist); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(append([]string{item.Program}, item.Args...), plist.Dict.Args); diff != "" {
		t.Error(diff)
	}
	if want := []string{"Label", "ProgramArguments", "RunAtLoad", "AbandonProcessGroup"}; !slices.Equal(plist.Dict.Keys, want) || len(plist.Dict.True) != 2 {
		t.Errorf("keys %v, want %v; %d of them true", plist.Dict.Keys, want, len(plist.Dict.True))
	}
	if want := []string{"com.github.lsub.debian-0123456789ab"}; !slices.Equal(plist.Dict.Strings, want) {
		t.Errorf("label %v, want %v", plist.Dict.Strings, want)
	}
}

func TestWindowsTask(t *testing.T) {
	item := oddItem()
	data := item.windowsTask()
	if !bytes.HasPrefix(data, []byte{0xff, 0xfe}) || len(data)%2 != 0 {
		t.Fatal("the task is not UTF-16 with a byte order mark")
	}
	var units []uint16
	for b := data[2:]; len(b) > 0; b = b[2:] {
		units = append(units, binary.LittleEndian.Uint16(b))
	}
	text := strings.Replace(string(utf16.Decode(units)), `encoding="UTF-16"`, `encoding="UTF-8"`, 1)
	var task struct {
		Trigger string `xml:"Triggers>LogonTrigger>UserId"`
		User    string `xml:"Principals>Principal>UserId"`
		Command string `xml:"Actions>Exec>Command"`
		Args    string `xml:"Actions>Exec>Arguments"`
		Limit   string `xml:"Settings>ExecutionTimeLimit"`
	}
	if err := xml.Unmarshal([]byte(text), &task); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if task.Command != item.Program || task.User != item.User || task.Trigger != item.User || task.Limit != "PT0S" {
		t.Errorf("%+v", task)
	}
	if want := `--profile=default "--home=/data/x y%d$HOME" start debian`; task.Args != want {
		t.Errorf("arguments %s, want %s", task.Args, want)
	}
}

// TestWindowsArg has the examples of Microsoft's "Parsing C++ command-line arguments".
func TestWindowsArg(t *testing.T) {
	for in, want := range map[string]string{
		`abc`: `abc`, ``: `""`, `a b`: `"a b"`, `C:\x\`: `C:\x\`, `C:\x y\`: `"C:\x y\\"`, `a\\\b`: `a\\\b`, `a\"b c`: `"a\\\"b c"`, `"`: `"\""`,
	} {
		if got := windowsArg(in); got != want {
			t.Errorf("%s becomes %s, want %s", in, got, want)
		}
	}
}

// TestLoginItems installs, renews and removes an item in each system's way.
func TestLoginItems(t *testing.T) {
	dir := t.TempDir()
	reloads := 0
	tasks := map[string][]byte{}
	absent := exec.Command(os.Args[0], "-no-such-flag").Run() // an *exec.ExitError
	for name, items := range map[string]Store{
		"systemd": systemd{filepath.Join(dir, "systemd", "user"), func() error { reloads++; return errors.New("it does not run") }},
		"launchd": launchd{filepath.Join(dir, "Library", "LaunchAgents")},
		"schtasks": scheduler{func(args ...string) error {
			switch args[0] {
			case "/create": // /f /tn NAME /xml FILE
				b, err := os.ReadFile(args[5])
				tasks[args[3]] = b
				return err
			case "/query": // /tn NAME
				if tasks[args[2]] == nil {
					return absent
				}
			case "/delete": // /f /tn NAME
				delete(tasks, args[3])
			}
			return nil
		}},
	} {
		t.Run(name, func(t *testing.T) {
			item := oddItem()
			has := func(want bool) {
				t.Helper()
				if got, err := items.Has(item.ID); err != nil || got != want {
					t.Fatalf("has: %v, %v; want %v", got, err, want)
				}
			}
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			has(false)
			check(items.Remove(item.ID))
			check(items.Install(item))
			has(true)
			item.Name = "renamed"
			check(items.Install(item))
			has(true)
			if name == "systemd" && !treeHas(t, dir, "renamed") { // the others have no name for people
				t.Error("the item was not renewed")
			}
			check(items.Remove(item.ID))
			has(false)
		})
	}
	if reloads != 3 {
		t.Errorf("systemd was told of %d changes, want 3", reloads)
	}
	if files := filesBelow(t, dir); len(files) > 0 || len(tasks) > 0 {
		t.Errorf("left behind: %v, %v", files, tasks)
	}
}

func filesBelow(t *testing.T, dir string) (files []string) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func treeHas(t *testing.T, dir, text string) bool {
	return slices.ContainsFunc(filesBelow(t, dir), func(path string) bool {
		b, err := os.ReadFile(path)
		return err == nil && bytes.Contains(b, []byte(text))
	})
}

func TestSystemdRefuses(t *testing.T) {
	for _, exe := range []string{`/a"b`, "/a'b", `/a\b`, "/a\nb"} {
		dir := t.TempDir()
		item := oddItem()
		item.Program = exe
		if err := (systemd{dir, func() error { return nil }}).Install(item); err == nil || len(filesBelow(t, dir)) > 0 {
			t.Errorf("%q: %v, %v", exe, err, filesBelow(t, dir))
		}
	}
}
