package main

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

func TestImageWishes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		img     images.Image
		want    machine.Distro
		warning string
	}{
		{"none", images.Image{}, machine.Distro{}, ""},
		{"root", images.Image{Config: images.Config{User: "root"}}, machine.Distro{}, ""},
		{"root by number", images.Image{Config: images.Config{User: "0:0"}}, machine.Distro{}, ""},
		{"root with a group", images.Image{Config: images.Config{User: "0:10"}}, machine.Distro{User: "0:10"}, ""},
		{"a name", images.Image{Config: images.Config{User: "www-data"}}, machine.Distro{User: "www-data"}, ""},
		{"numbers", images.Image{Config: images.Config{User: "65532:77"}}, machine.Distro{User: "65532:77", UID: 65532}, ""},
		{"a name with a group", images.Image{Config: images.Config{User: "app:app"}}, machine.Distro{User: "app:app"}, ""},
		{"nonsense", images.Image{Config: images.Config{User: "a\x1b[2Jb"}}, machine.Distro{}, `the image's user "a\x1b[2Jb" is none`},
		{"too long", images.Image{Config: images.Config{User: strings.Repeat("a", 33)}}, machine.Distro{}, "is none, so root is the default user"},
		{"an empty name with a group", images.Image{Config: images.Config{User: ":staff"}}, machine.Distro{}, `the image's user ":staff" is none`},
		{"a first run", images.Image{Setup: images.Setup{Command: "x", UID: 1000}}, machine.Distro{FirstRun: &machine.FirstRun{Command: "x", UID: 1000}}, ""},
		{"a user alone", images.Image{Setup: images.Setup{UID: 1000}}, machine.Distro{FirstRun: &machine.FirstRun{UID: 1000}}, ""},
		{"a warning", images.Image{Setup: images.Setup{Warnings: []string{"line 1: odd"}}}, machine.Distro{}, "lsub: warning: d: line 1: odd\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said bytes.Buffer
			a := &app{stderr: &said, status: &statusLine{}}
			got := machine.Distro{Name: "d"}
			a.imageWishes(&tt.img, &got)
			tt.want.Name = "d"
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if !strings.Contains(said.String(), tt.warning) || tt.warning == "" && said.Len() > 0 {
				t.Errorf("said %q, want %q", said.String(), tt.warning)
			}
		})
	}
}
