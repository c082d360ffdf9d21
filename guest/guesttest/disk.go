package guesttest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// disk is what a data disk holds.
type disk struct {
	mu   sync.Mutex
	path string
	data diskData
	run  map[string]int // ids of the distros that run, and their sessions
	// starts tells the starts of the distros apart.
	starts map[string]int64
	// specs are what the running distros were started with, or given since.
	specs map[string]*guestv1.Distro
	// scripts are what was run as "sh -s" in the distros, by their ids.
	scripts map[string][]string
	tell    sync.Cond // of mu: run has changed
}

type diskData struct {
	Images  []string          `json:"images"`
	Distros map[string]string `json:"distros"` // id to the name of the account that it was made with

	DefaultUsers map[string]string `json:"default_users,omitempty"` // by id, as in /etc/lsub.conf

	Snapshots map[string][]string `json:"snapshots"` // ids, by the distro's

	Env map[string][]string `json:"env"` // of the distros' images, by id

	Records map[string][]byte `json:"records,omitempty"` // by id
}

func openDisk(path string) (*disk, error) {
	d := &disk{path: path, run: map[string]int{}, starts: map[string]int64{}, specs: map[string]*guestv1.Distro{}, scripts: map[string][]string{}}
	d.tell.L = &d.mu
	d.data.Distros, d.data.Snapshots = map[string]string{}, map[string][]string{}
	d.data.Env, d.data.Records = map[string][]string{}, map[string][]byte{}
	if path == "" {
		return d, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var first [1]byte
	if n, _ := f.Read(first[:]); n == 0 || first[0] == 0 {
		return d, nil // a new disk
	}
	f.Seek(0, 0)
	// What follows the first value was left by a longer one before it.
	if err := json.NewDecoder(f).Decode(&d.data); err != nil {
		return nil, fmt.Errorf("the data disk is broken: %w", err)
	}
	return d, nil
}

// save writes the disk; its mutex is held.
func (d *disk) save() error {
	if d.path == "" {
		return nil
	}
	b, err := json.Marshal(d.data)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(d.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(append(b, '\n'), 0)
	return err
}

func (d *disk) hasImage(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Contains(d.data.Images, id)
}

func (d *disk) addImage(id string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data.Images = append(d.data.Images, id)
	return d.save()
}

// addUser gives a distro its account.
func (d *disk) addUser(id, name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.data.Distros[id] = name
	return d.save()
}

// imageEnv is the environment of a distro's image.
func (d *disk) imageEnv(id string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.data.Env[id])
}

// start starts a distro where it does not run.
func (d *disk) start(spec *guestv1.Distro) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := spec.GetId()
	if _, ok := d.data.Distros[id]; !ok {
		return guest.NoDistro(id)
	}
	if _, runs := d.run[id]; !runs {
		if d.path != "" {
			os.RemoveAll(filepath.Join(filesOf(d.path, id), "run")) // see hostScript
		}
		d.specs[id] = spec
		d.run[id] = 0
		d.starts[id] = time.Now().UnixNano()
	}
	d.tell.Broadcast()
	return d.keepRecord(spec)
}

// started is when a distro has started, Unix time in nanoseconds.
func (d *disk) started(id string) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.starts[id]
}

// keepRecord keeps a distro's record; the disk's mutex is held.
func (d *disk) keepRecord(spec *guestv1.Distro) error {
	if len(spec.Record) == 0 || bytes.Equal(d.data.Records[spec.Id], spec.Record) {
		return nil
	}
	d.data.Records[spec.Id] = spec.Record
	return d.save()
}

// enter counts a session in a distro that runs. It returns the account that the distro
// was made with.
func (d *disk) enter(id string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, runs := d.run[id]; !runs {
		return "", guest.NotRunning()
	}
	d.run[id]++
	return d.data.Distros[id], nil
}

// configure gives a distro that runs another spec.
func (d *disk) configure(spec *guestv1.Distro) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.data.Distros[spec.GetId()]; !ok {
		return guest.NoDistro(spec.GetId())
	}
	d.specs[spec.Id] = spec
	return d.keepRecord(spec)
}

// limits returns those of a distro that runs.
func (d *disk) limits(id string) *guestv1.Limits {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.specs[id].GetLimits()
}

// isolated tells whether a distro that runs has a network of its own.
func (d *disk) isolated(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.specs[id].GetIsolated()
}

// ownUser is the default user that a distro's /etc/lsub.conf names.
func (d *disk) ownUser(id string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.data.DefaultUsers[id]
}

func (d *disk) leave(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.run[id]; ok {
		d.run[id]--
	}
}
