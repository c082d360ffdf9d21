package converge

import (
	"encoding/hex"
	"encoding/json"
	"io"

	"crypto/sha256"

	"github.com/lsub/lsub/distro/provision"
	"github.com/lsub/lsub/profile"
)

// contents is what a distro is to have, with the files of the host that the profile names.
type contents struct {
	files []provision.Content
	steps []provision.Content
	marks []string // of steps
	sum   string   // of all that the profile says of the distro
}

// read reads what the profile names for a distro.
func (u *up) read(name string, d profile.Distro) (contents, error) {
	var all contents
	host := provision.Host{Dir: u.cfg.Dir, Home: u.cfg.Home, Getenv: u.cfg.Getenv}
	h := sha256.New()
	for _, f := range d.Files {
		c, err := host.Read(f.Source, f.Content, f.At)
		if err != nil {
			return all, err
		}
		all.files = append(all.files, c)
		io.WriteString(h, c.Sum)
	}
	var err error
	if all.steps, err = host.Steps(d.Provision, nil); err != nil {
		return all, err
	}
	for i, s := range d.Provision {
		if provision.HasCRLF(all.steps[i].Data) {
			u.tell(provision.Event{Type: provision.Note, Distro: name, Kind: provision.KindStep, Name: s.Name,
				Text: s.At + ": its script has Windows line ends (CR LF), and reaches the distro so: shells take the CR as part of the line"})
		}
		io.WriteString(h, provision.SumOf([]byte(s.Mode), all.steps[i].Data))
	}
	all.marks = provision.Marks(d.Provision, all.steps)
	b, err := json.Marshal(d)
	if err != nil {
		return all, err
	}
	h.Write(b)
	all.sum = hex.EncodeToString(h.Sum(nil))
	return all, nil
}
