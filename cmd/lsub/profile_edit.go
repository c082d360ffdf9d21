package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/profile"
	"github.com/lsub/lsub/profile/wslconfig"
)

// editProfile opens the profile's file in an editor, until it is valid or the user gives up.
func (a *app) editProfile(c *cli.Context) error {
	m, err := a.profileNamed(c)
	if err != nil {
		return err
	}
	path := m.ProfileFile()
	before, err := os.ReadFile(path)
	text := before
	if errors.Is(err, fs.ErrNotExist) {
		schema, err := a.writeSchema()
		if err != nil {
			return err
		}
		text = newFile(filepath.ToSlash(schema))
	} else if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "lsub-edit-")
	if err != nil {
		return err
	}
	draft := filepath.Join(dir, profile.File) // editors know the kind by the name
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	after, err := a.editUntilValid(c.Context, draft, path, m.ProfileSource(m.ProfileDir(), m.ProfileParams()))
	if err != nil {
		return hint.New(err, "nothing was saved; your text is in "+draft)
	}
	if bytes.Equal(after, text) {
		os.RemoveAll(dir)
		a.note("note", "nothing was changed")
		return nil
	}
	if now, err := os.ReadFile(path); err == nil && !bytes.Equal(now, before) {
		return hint.New(fmt.Errorf("%s was changed by another program meanwhile", path), "nothing was saved; your text is in "+draft)
	}
	if err := m.MakeDir(); err != nil {
		return err
	}
	if err := atomicfile.Write(path, after, 0o600); err != nil {
		return hint.New(err, "your text is in "+draft)
	}
	os.RemoveAll(dir)
	if origin := m.ProfileOrigin(); origin != "" {
		a.note("note", fmt.Sprintf("%s was a copy of %s, which stays as it is", displayPath(path), displayPath(origin)))
	}
	a.note("note", "'lsub up' makes the distros what the file says")
	return nil
}

// editUntilValid returns what an editor has made of a draft of a file.
func (a *app) editUntilValid(ctx context.Context, draft, path string, src profile.Source) ([]byte, error) {
	for {
		if err := a.edit(ctx, draft); err != nil {
			return nil, err
		}
		text, err := os.ReadFile(draft)
		if err != nil {
			return nil, err
		}
		_, err = profile.ParseFrom(path, text, src)
		if err == nil {
			return text, nil
		}
		if !a.onTerminal() {
			return nil, err
		}
		a.printError(err)
		again, asked := a.confirm(ctx, "Edit it again?")
		if asked != nil || !again {
			return nil, errors.New("the file is not valid")
		}
	}
}

// edit runs the user's editor, whose name may have arguments.
func (a *app) edit(ctx context.Context, file string) error {
	editor := os.Getenv("VISUAL")
	if editor == "" {
		editor = os.Getenv("EDITOR")
	}
	var cmd *exec.Cmd
	switch {
	case runtime.GOOS == "windows" && editor == "":
		cmd = exec.CommandContext(ctx, "notepad.exe", file)
	case runtime.GOOS == "windows":
		cmd = exec.CommandContext(ctx, "cmd.exe", "/c", editor+` "`+file+`"`)
	case editor == "":
		editor = "vi"
		fallthrough
	default:
		cmd = exec.CommandContext(ctx, "/bin/sh", "-c", editor+` "$1"`, "sh", file)
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.stdin, a.stdout, a.stderr
	if err := cmd.Run(); err != nil {
		return hint.New(fmt.Errorf("the editor failed: %w", err), "$VISUAL or $EDITOR names the editor")
	}
	return nil
}

// importWSLConfig puts what a .wslconfig says into the profile's file. A key that the file has
// already stays.
func (a *app) importWSLConfig(c *cli.Context) error {
	source := c.Args().First()
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	path := a.machine.ProfileFile()
	file, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	changes := 0
	rows := [][]string{{"LINE", "WSL", "PROFILE"}}
	for _, s := range wslconfig.Import(data) {
		text := s.Why
		if s.To != "" {
			out, there, err := profile.Insert(path, file, s.To, s.YAML)
			if err != nil {
				return err
			}
			text = s.To + ": " + s.YAML
			if there {
				text += " (not taken: the profile's file has " + s.To + " already)"
			} else {
				changes++
			}
			if s.Why != "" {
				text += " (" + s.Why + ")"
			}
			file = out
		}
		key := s.Key
		if key != "" {
			key += "=" + s.Value
		}
		rows = append(rows, []string{fmt.Sprint(s.Line), key, text})
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	if changes == 0 || c.Bool("dry-run") {
		return nil
	}
	if err := a.machine.MakeDir(); err != nil {
		return err
	}
	if err := atomicfile.Write(path, file, 0o600); err != nil {
		return err
	}
	a.note("note", fmt.Sprintf("%s has them now; they count from the next start of the VM", displayPath(path)))
	return nil
}
