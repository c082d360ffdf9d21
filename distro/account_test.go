package distro

import (
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
		{"a warning", images.Image{Setup: images.Setup{Warnings: []string{"line 1: odd"}}}, machine.Distro{}, "warning: d: line 1: odd\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var said heard
			got := machine.Distro{Name: "d"}
			New(Config{Events: &said}).imageWishes(&tt.img, &got)
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

func TestAccountName(t *testing.T) {
	for name, want := range map[string]string{
		"ada": "ada", `CORP\Ada.Lovelace`: "ada-lovelace", "ada@example.com": "ada", "4ever": "ever", "_svc": "_svc",
		"": "user", "-": "user", "Ünal": "nal", "爱": "user", "games": "games-user", "systemd-network": "systemd-network-user",
		strings.Repeat("x", 40): strings.Repeat("x", 32), strings.Repeat("x", 31) + "-y": strings.Repeat("x", 31),
	} {
		got := accountName(name)
		if got != want {
			t.Errorf("%q gives %q, want %q", name, got, want)
		}
		if again := accountName(got); again != got {
			t.Errorf("%q is no account name itself: %q", got, again)
		}
	}
}

func TestAccountUID(t *testing.T) {
	for text, want := range map[string]uint32{
		"0": 0, "1000": 1000, "501": 1000, "4242": 4242, "65534": 1000, "S-1-5-21-1-2-3-1001": 1000, "4294967295": 1000, "70000": 70000,
	} {
		if got := machine.AccountUID(text); got != want {
			t.Errorf("%s gives %d, want %d", text, got, want)
		}
	}
}

func TestAccountFor(t *testing.T) {
	file := images.FileRef("x.tar")
	if u, err := accountFor(file, ""); u != nil || err != nil {
		t.Errorf("an archive: %v, %v", u, err)
	}
	if u, err := accountFor(file, "ada"); u.GetName() != "ada" || err != nil {
		t.Errorf("an archive and a user: %v, %v", u, err)
	}
	if u, err := accountFor(file, "root"); u != nil || err != nil {
		t.Errorf("root: %v, %v", u, err)
	}
	for _, bad := range []string{"Ada", "a b", "0day", "daemon"} {
		if _, err := accountFor(file, bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
