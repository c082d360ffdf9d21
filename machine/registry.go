package machine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
)

// registryVersion is the format of registry.json.
const registryVersion = 1

// lockTimeout bounds the wait for another command that changes the registry,
// which takes it milliseconds.
const lockTimeout = 10 * time.Second

// Distro is an installed distro.
type Distro struct {
	ID        string    `json:"id"`             // its subvolume; never reused
	Name      string    `json:"name"`           // as [CheckName] wants it
	Image     string    `json:"image"`          // "sha256:…" of the image it was made of
	ImageName string    `json:"image_name"`     // what the user called that image
	Arch      string    `json:"arch,omitempty"` // as GOARCH, where its programs are for another processor than the VM's
	Created   time.Time `json:"created"`        // UTC
	User      string    `json:"user,omitempty"` // default user; "" is root
	UID       uint32    `json:"uid,omitempty"`  // of User

	Autostart bool          `json:"autostart,omitempty"`  // starts with the VM
	Idle      time.Duration `json:"idle,omitempty"`       // idle for so long, it is stopped; 0: the default; below 0: never
	MemoryMax int64         `json:"memory_max,omitempty"` // bytes; 0 is no limit
	CPUMax    int64         `json:"cpu_max,omitempty"`    // thousandths of a CPU; 0 is no limit
	PIDsMax   int64         `json:"pids_max,omitempty"`   // 0 is no limit

	Isolated bool `json:"isolated,omitempty"` // has a network of its own, from its next start on; as the profile said last

	// Env is what its services get, NAME=value: from its next start on, and as
	// whoever starts it says.
	Env []string `json:"-"`

	CA string `json:"ca,omitempty"` // sums up the profile's certificates that it has; "" for none

	Snapshots []Snapshot `json:"snapshots,omitempty"` // the oldest first
	FirstRun  *FirstRun  `json:"first_run,omitempty"` // nil once it was done, or where there is none

	Up        *Up  `json:"up,omitempty"`        // what 'lsub up' did last; nil: nothing
	Ephemeral bool `json:"ephemeral,omitempty"` // is removed once its command has ended
}

// Up is what 'lsub up' knows of a distro.
type Up struct {
	Made  bool   `json:"made,omitempty"`  // it has installed the distro
	Image string `json:"image,omitempty"` // of the profile's file, where Made
	Sum   string `json:"sum,omitempty"`   // of what the file said when all of it was done
	Home  bool   `json:"home,omitempty"`  // it has made something in the default user's home directory
}

// Guest is what the guest must know of d to start it. d itself goes along as JSON, so that
// it can be registered anew where the registry is lost.
func (d *Distro) Guest() *guestv1.Distro {
	record, err := json.Marshal(d)
	if err != nil {
		record = nil // it is not kept; a Distro can always be written
	}
	return &guestv1.Distro{
		Record: record,
		Id:     d.ID, Name: strings.ToLower(d.Name), Title: d.Name,
		Limits: &guestv1.Limits{MemoryMax: d.MemoryMax, CpuMax: d.CPUMax, PidsMax: d.PIDsMax},
		IdleNs: int64(d.Idle), DefaultUser: d.User, Timezone: HostTimezone(), Isolated: d.Isolated, Env: d.Env,
	}
}

// FirstRun is what an image wants to be run before its first shell: the oobe
// section of /etc/wsl-distribution.conf.
type FirstRun struct {
	Command string `json:"command,omitempty"` // for /bin/sh -c, as root at a terminal
	UID     uint32 `json:"uid,omitempty"`     // the default user once it has succeeded; 0 for none
}

// Registry is what is known of a profile's distros. What else is on the data disk is kept
// aside by the supervisor, unless it was removed.
type Registry struct {
	Version int      `json:"version"`
	Default string   `json:"default,omitempty"` // ID of the default distro
	Distros []Distro `json:"distros"`           // the oldest first

	// Removed are the ids of the distros and snapshots that were removed while their files
	// could not be deleted, and when: the supervisor deletes the files.
	Removed map[string]time.Time `json:"removed,omitempty"`

	// Unregistered are the distros that the supervisor has found on the data disk and not
	// in this registry, the oldest find first.
	Unregistered []Unregistered `json:"unregistered,omitempty"`

	// Unused says since when no distro is left of an image, by the image's ID.
	Unused map[string]time.Time `json:"unused,omitempty"`
}

// Unregistered is a distro on the data disk that no command can use: this registry is older
// than the distro, or replaces one that was lost.
type Unregistered struct {
	ID     string    `json:"id"`
	Found  time.Time `json:"found"`            // UTC
	Distro *Distro   `json:"distro,omitempty"` // as it was registered last; nil where that is unknown
}

// UnregisteredAge is for how long a distro is kept that is not registered.
const UnregisteredAge = 30 * 24 * time.Hour

// Name is what the distro was called last, or its id.
func (u *Unregistered) Name() string {
	if u.Distro != nil && u.Distro.Name != "" {
		return u.Distro.Name
	}
	return u.ID
}

// FindUnregistered returns the distro that is not registered of an id, or of a name that
// only one of them has, in any case; nil for none.
func (r *Registry) FindUnregistered(name string) *Unregistered {
	var found *Unregistered
	for i := range r.Unregistered {
		u := &r.Unregistered[i]
		if u.ID == name {
			return u
		}
		if strings.EqualFold(u.Name(), name) {
			if found != nil {
				return nil
			}
			found = u
		}
	}
	return found
}

// SetRemoved notes that the files of an id are to be deleted.
func (r *Registry) SetRemoved(id string) {
	if r.Removed == nil {
		r.Removed = map[string]time.Time{}
	}
	r.Removed[id] = time.Now().UTC().Truncate(time.Second)
	r.Unregistered = slices.DeleteFunc(r.Unregistered, func(u Unregistered) bool { return u.ID == id })
}

// ImageAge is for how long the VM keeps an image that no distro is left of: as
// long as somebody may well install it again in an instant.
const ImageAge = 7 * 24 * time.Hour

// KeepsImage tells whether an image is worth its place on the data disk.
func (r *Registry) KeepsImage(id string) bool {
	since, unused := r.Unused[id]
	return r.uses(id) || unused && time.Since(since) < ImageAge
}

// NoteImage notes an image that no distro is left of, of which the registry knew nothing: it
// is kept as long as others. It tells whether that is so.
func (r *Registry) NoteImage(id string, now time.Time) bool {
	if _, known := r.Unused[id]; known || r.uses(id) {
		return false
	}
	if r.Unused == nil {
		r.Unused = map[string]time.Time{}
	}
	r.Unused[id] = now
	return true
}

// uses tells whether a distro is left of an image.
func (r *Registry) uses(image string) bool {
	return slices.ContainsFunc(r.Distros, func(d Distro) bool { return d.Image == image })
}

// Registry reads the registry. It is a picture of the moment.
func (m *Machine) Registry() (*Registry, error) {
	r, _, err := m.ReadRegistry()
	return r, err
}

// ReadRegistry also tells whether the file is there.
func (m *Machine) ReadRegistry() (*Registry, bool, error) {
	path := m.path("registry.json")
	r := &Registry{Version: registryVersion}
	err := readJSON(path, registryVersion, r, m.cfg.Logger)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, false, nil
	case err != nil:
		// An empty registry in its place would have every distro deleted.
		if hint.Of(err) == "" {
			err = hint.New(err, "repair the file, or put back the one before it: "+path+".old")
		}
		return nil, true, fmt.Errorf("read the registry: %w", err)
	}
	r.Version = registryVersion
	return r, true, nil
}

// Update changes the registry: change gets its latest state, and what it leaves is written
// unless it returns an error, which Update returns as it is. No other process
// changes the registry in between, so change has to be quick.
func (m *Machine) Update(ctx context.Context, change func(*Registry) error) error {
	ctx, cancel := context.WithTimeout(ctx, lockTimeout)
	defer cancel()
	if err := m.MakeDir(); err != nil {
		return err
	}
	l, err := filelock.Acquire(ctx, m.path("registry.lock"), nil)
	if err != nil {
		return err
	}
	defer l.Release()
	r, found, err := m.ReadRegistry()
	if err != nil {
		return err
	}
	if err := change(r); err != nil {
		return err
	}
	path := m.path("registry.json")
	if found {
		old, err := atomicfile.Read(path)
		if err != nil {
			return err
		}
		if err := atomicfile.Write(path+".old", old, 0o600); err != nil {
			return err
		}
	}
	return writeJSON(path, r)
}

// Find returns the distro of that name, in any case. Where there is none, the
// error suggests the nearest name.
func (r *Registry) Find(name string) (*Distro, error) {
	if i := r.index(name); i >= 0 {
		return &r.Distros[i], nil
	}
	err := fmt.Errorf("no distro is called %q", name)
	if len(r.Distros) == 0 {
		return nil, hint.New(err, "nothing is installed yet; 'lsub install debian' installs one")
	}
	names := make([]string, len(r.Distros))
	for i, d := range r.Distros {
		names[i] = d.Name
	}
	if near := hint.Nearest(name, names); near != "" {
		return nil, hint.New(err, fmt.Sprintf("did you mean %q?", near))
	}
	return nil, hint.New(err, "'lsub list' shows those there are")
}

// DefaultDistro returns the distro that is meant where none is named.
func (r *Registry) DefaultDistro() (*Distro, error) {
	for i := range r.Distros {
		if r.Distros[i].ID == r.Default {
			return &r.Distros[i], nil
		}
	}
	if len(r.Distros) == 0 {
		return nil, hint.New(errors.New("no distro is installed"), "'lsub install debian' installs one")
	}
	return nil, hint.New(errors.New("no distro is the default"), "choose one with 'lsub set-default NAME'")
}

// Available returns an error where no distro of that name may be added.
func (r *Registry) Available(name string) error {
	if err := CheckName("distro", name); err != nil {
		return err
	}
	if i := r.index(name); i >= 0 {
		return hint.New(fmt.Errorf("a distro called %q is installed already", r.Distros[i].Name),
			"choose another name, or remove it with 'lsub unregister "+r.Distros[i].Name+"'")
	}
	return nil
}

// Add registers a distro. The first one becomes the default.
func (r *Registry) Add(d Distro) error {
	if err := r.Available(d.Name); err != nil {
		return err
	}
	r.Distros = append(r.Distros, d)
	delete(r.Unused, d.Image)
	delete(r.Removed, d.ID)
	r.Unregistered = slices.DeleteFunc(r.Unregistered, func(u Unregistered) bool { return u.ID == d.ID })
	if r.Default == "" {
		r.Default = r.heir()
	}
	return nil
}

// Remove removes a distro; its files are to be deleted. Where it was the default, the
// oldest one left is.
func (r *Registry) Remove(id string) {
	d := r.byID(id)
	if d == nil {
		return
	}
	r.SetRemoved(id)
	for _, snap := range d.Snapshots {
		r.SetRemoved(snap.ID)
	}
	image := d.Image
	defer func() {
		if !r.uses(image) {
			if r.Unused == nil {
				r.Unused = map[string]time.Time{}
			}
			r.Unused[image] = time.Now().UTC().Truncate(time.Second)
		}
	}()
	r.Distros = slices.DeleteFunc(r.Distros, func(d Distro) bool { return d.ID == id })
	if r.Default == id {
		r.Default = r.heir()
	}
}

// heir returns the ID of the distro that becomes the default one: the oldest that stays, or
// "" for none.
func (r *Registry) heir() string {
	for _, d := range r.Distros {
		if !d.Ephemeral {
			return d.ID
		}
	}
	return ""
}

func (r *Registry) index(name string) int {
	return slices.IndexFunc(r.Distros, func(d Distro) bool { return strings.EqualFold(d.Name, name) })
}

var errRemoved = errors.New("the distro was removed meanwhile")

// Rename gives a distro another name; one that differs in case only is its own.
func (r *Registry) Rename(id, name string) error {
	d := r.byID(id)
	if d == nil {
		return errRemoved
	}
	if !strings.EqualFold(d.Name, name) {
		if err := r.Available(name); err != nil {
			return err
		}
	} else if err := CheckName("distro", name); err != nil {
		return err
	}
	d.Name = name
	return nil
}

// Change calls change with the distro of an ID.
func (r *Registry) Change(id string, change func(*Distro) error) error {
	d := r.byID(id)
	if d == nil {
		return errRemoved
	}
	return change(d)
}

func (r *Registry) byID(id string) *Distro {
	for i := range r.Distros {
		if r.Distros[i].ID == id {
			return &r.Distros[i]
		}
	}
	return nil
}

// IsID tells whether a text may be the id of a distro or of a snapshot.
func IsID(id string) bool {
	return id != "" && len(id) <= 80 && strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// NewID makes the ID of a new distro: readable, and never used before.
func NewID(name string) string {
	b := []byte(strings.ToLower(name))
	for i, c := range b {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			b[i] = '-'
		}
	}
	var random [6]byte
	rand.Read(random[:])
	return fmt.Sprintf("%s-%s", b[:min(len(b), 40)], hex.EncodeToString(random[:]))
}
