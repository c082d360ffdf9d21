package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile/schema"
	"github.com/lsub/lsub/profile/templates"
)

func (a *app) profileCommand() *cli.Command {
	sub := func(name, args, text string, least, most int, do func(*cli.Context) error, flags ...cli.Flag) *cli.Command {
		usage := "lsub profile " + name
		return &cli.Command{
			Name: name, Usage: text, UsageText: strings.TrimSpace(usage + " " + args), Flags: flags,
			HideHelpCommand: true, OnUsageError: a.usageError,
			Action: func(c *cli.Context) error {
				if c.NArg() < least || c.NArg() > most {
					return badUsage(usage, "profile %s takes %s", name, cmp.Or(args, "no arguments"))
				}
				return do(c)
			},
		}
	}
	yes := &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "ask no questions"}
	return &cli.Command{
		Name: "profile", Usage: "list, write, check, copy and delete profiles: VMs with their distros",
		UsageText:   "lsub profile list|show|new|templates|edit|validate|schema|copy|delete|import-wslconfig",
		Description: "NAME is the profile of --profile where it may be left out. docs/profile.md describes the file of a profile.",
		Subcommands: []*cli.Command{
			sub("list", "[--json]", "list the profiles", 0, 0, a.listProfiles, &cli.BoolFlag{Name: "json", Usage: "print JSON"}),
			sub("show", "[NAME]", "print a profile's file", 0, 1, a.showProfile),
			sub("templates", "[NAME]", "list the templates that a file can build on, or print one", 0, 1, a.listTemplates),
			sub("new", "[--template T] [-o FILE] [NAME]", "write a profile's file, where there is none", 0, 1, a.newProfile,
				&cli.StringFlag{Name: "template", Aliases: []string{"t"}, Usage: "write the template `T`; 'lsub profile templates' lists them"},
				&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write it to `FILE` instead, - for stdout; 'lsub up -f FILE' takes it"}),
			sub("edit", "[NAME]", "open a profile's file in $VISUAL or $EDITOR; what is not valid is not saved", 0, 1, a.editProfile),
			sub("validate", "[NAME|FILE]", "check a profile's file, or any other", 0, 1, a.validateProfile),
			sub("schema", "", "print the JSON schema of the file, for editors", 0, 0, func(*cli.Context) error {
				_, err := a.stdout.Write(schema.JSON)
				return err
			}),
			sub("copy", "FROM TO", "copy a profile's file to a new profile, without the distros", 2, 2, a.copyProfile),
			sub("delete", "[--yes] NAME", "remove a profile with its VM, its distros and all their files", 1, 1, a.deleteProfile, yes),
			sub("import-wslconfig", "FILE", "put what a .wslconfig of WSL says into the profile's file", 1, 1, a.importWSLConfig,
				&cli.BoolFlag{Name: "dry-run", Aliases: []string{"n"}, Usage: "say what would be done, and do nothing"}),
		},
		Action: func(c *cli.Context) error {
			return badUsage("lsub profile", "profile needs one of list, show, new, edit, validate, schema, copy, delete and import-wslconfig")
		},
	}
}

// profileNamed is the machine of the profile of the only argument, or of --profile.
func (a *app) profileNamed(c *cli.Context) (*machine.Machine, error) {
	if name := c.Args().First(); name != "" && name != a.machine.Profile() {
		return a.machine.Other(name)
	}
	return a.machine, nil
}

// listedProfile is a profile as "profile list --json" prints it.
type listedProfile struct {
	Name    string   `json:"name"`
	State   string   `json:"state"` // "running" or "stopped": of its VM
	File    string   `json:"file"`  // its path; it need not be there
	Error   string   `json:"error,omitempty"`
	Origin  string   `json:"copy_of,omitempty"` // the file that 'lsub up -f' took
	Distros []string `json:"distros"`           // that are installed
	Disk    int64    `json:"disk_used"`         // bytes of the host's disk
}

func (a *app) listProfiles(c *cli.Context) error {
	var all []*machine.Machine
	if a.machine.Exists() {
		all = append(all, a.machine)
	}
	others, err := a.machine.Others()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	list := []listedProfile{}
	for _, m := range append(all, others...) {
		p := listedProfile{Name: m.Profile(), State: "stopped", File: m.ProfileFile(), Origin: m.ProfileOrigin(), Distros: []string{}, Disk: m.DiskUsage()}
		if _, err := m.Status(c.Context); err == nil {
			p.State = "running"
		}
		if _, err := m.LoadProfile(); err != nil {
			p.Error = err.Error()
		}
		if reg, err := m.Registry(); err == nil {
			for _, d := range reg.Distros {
				p.Distros = append(p.Distros, d.Name)
			}
		}
		list = append(list, p)
	}
	if c.Bool("json") {
		return printJSON(a.stdout, list)
	}
	rows := [][]string{{"NAME", "VM", "DISK", "DISTROS"}}
	for _, p := range list {
		rows = append(rows, []string{p.Name, p.State, size(uint64(p.Disk)), cmp.Or(strings.Join(p.Distros, ", "), "-")})
	}
	if err := table(a.stdout, rows); err != nil {
		return err
	}
	for _, p := range list {
		if p.Error != "" {
			a.note("note", p.Error)
		}
	}
	return nil
}

func (a *app) showProfile(c *cli.Context) error {
	m, err := a.profileNamed(c)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(m.ProfileFile())
	if errors.Is(err, fs.ErrNotExist) {
		a.note("note", fmt.Sprintf("profile %s has no file: everything has its default", m.Profile()))
		return nil
	}
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(data)
	return err
}

// schemaLine is the first line of a new file, with the path of the schema.
const schemaLine = "# yaml-language-server: $schema=%s\n"

// newFile is what a new profile's file has. Editors find the schema by its first line.
func newFile(schemaPath string) []byte {
	return fmt.Appendf(nil, schemaLine+`# What the VM and its distros are like. 'lsub up' makes them so; docs/profile.md has every key.

# memory: 4GiB
# cpus: 4

# distros:
#   debian:
#     packages: [git]
#     provision:
#     - echo "hello from a step"
`, schemaPath)
}

// writeSchema writes the schema where editors find it, and returns its path.
func (a *app) writeSchema() (string, error) {
	path := filepath.Join(a.paths.Home, "profile.schema.json")
	if has, err := os.ReadFile(path); err == nil && string(has) == string(schema.JSON) {
		return path, nil
	}
	if err := os.MkdirAll(a.paths.Home, 0o700); err != nil {
		return "", err
	}
	return path, atomicfile.Write(path, schema.JSON, 0o600)
}

func (a *app) newProfile(c *cli.Context) error {
	m, err := a.profileNamed(c)
	if err != nil {
		return err
	}
	path, err := a.writeSchema()
	if err != nil {
		return err
	}
	text := newFile(filepath.ToSlash(path))
	if name := c.String("template"); name != "" {
		data, err := template(name)
		if err != nil {
			return err
		}
		text = append(fmt.Appendf(nil, schemaLine, filepath.ToSlash(path)), data...)
	}
	out := c.String("output")
	if out == "-" {
		_, err := a.stdout.Write(text)
		return err
	}
	if out != "" && c.NArg() > 0 {
		return badUsage("lsub profile new", "new writes either a profile's file or --output")
	}
	if out == "" {
		if err := m.MakeDir(); err != nil {
			return err
		}
		out = m.ProfileFile()
	}
	if err := createFile(out, text); err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, out)
	return nil
}

// createFile writes a file that is not there.
func createFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return hint.New(fmt.Errorf("%s is there already", path), "'lsub profile edit' opens a profile's file")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// template is a template's file.
func template(name string) ([]byte, error) {
	data, ok := templates.Read(name)
	if !ok {
		advice := "'lsub profile templates' lists them"
		if near := hint.Nearest(name, templates.Names()); near != "" {
			advice = "did you mean " + near + "?"
		}
		return nil, hint.New(fmt.Errorf("there is no template %q", name), advice)
	}
	return data, nil
}

func (a *app) listTemplates(c *cli.Context) error {
	if name := c.Args().First(); name != "" {
		data, err := template(name)
		if err != nil {
			return err
		}
		_, err = a.stdout.Write(data)
		return err
	}
	rows := [][]string{{"NAME", "WHAT IT IS"}}
	for _, name := range templates.Names() {
		data, _ := templates.Read(name)
		rows = append(rows, []string{name, templates.About(data)})
	}
	return table(a.stdout, rows)
}

func (a *app) validateProfile(c *cli.Context) error {
	path := c.Args().First()
	if path == "" || machine.CheckName("profile", path) == nil && !isFile(path) {
		m, err := a.profileNamed(c)
		if err != nil {
			return err
		}
		if path = m.ProfileFile(); !m.Exists() && c.NArg() > 0 {
			return hint.New(fmt.Errorf("there is no profile and no file %s", c.Args().First()), "'lsub profile list' shows the profiles")
		}
	} else if _, err := os.Stat(path); err != nil {
		return err
	}
	dir, set := filepath.Dir(path), map[string]string(nil)
	if path == a.machine.ProfileFile() {
		dir, set = a.machine.ProfileDir(), a.machine.ProfileParams()
	}
	p, err := a.parseProfile(path, dir, set)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s is valid, with %d distros\n", path, len(p.DistroNames()))
	return nil
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func (a *app) copyProfile(c *cli.Context) error {
	from, err := a.machine.Other(c.Args().Get(0))
	if err != nil {
		return err
	}
	to, err := a.machine.Other(c.Args().Get(1))
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from.ProfileFile())
	if errors.Is(err, fs.ErrNotExist) {
		return hint.New(fmt.Errorf("profile %s has no file", from.Profile()), "'lsub profile new "+to.Profile()+"' writes one")
	}
	if err != nil {
		return err
	}
	if err := to.MakeDir(); err != nil {
		return err
	}
	if err := createFile(to.ProfileFile(), data); err != nil {
		return err
	}
	if origin := from.ProfileOrigin(); origin != "" {
		// Relative paths start where they did.
		return to.TakeProfile(origin, data)
	}
	return nil
}

func (a *app) deleteProfile(c *cli.Context) error {
	m, err := a.machine.Other(c.Args().First())
	if err != nil {
		return err
	}
	if !m.Exists() {
		return hint.New(fmt.Errorf("there is no profile %s", m.Profile()), "'lsub profile list' shows the profiles")
	}
	reg, err := m.Registry()
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Remove profile %s with %d distros and all their files?", m.Profile(), len(reg.Distros))
	yes, err := a.confirmUnless(c.Bool("yes"))(c.Context, question)
	if err != nil {
		return err
	}
	if !yes {
		a.code = 1
		return nil
	}
	return a.distros.For(m).RemoveProfile(c.Context)
}
