package mmdebstrap

import (
	"os/user"
	"slices"
	"testing"
)

// Only variables that are needed to reach the packages are passed to a build.
func TestBuildEnv(t *testing.T) {
	got := buildEnv([]string{"TZ=Asia/Tokyo", "LANG=de_DE", "HTTP_PROXY=h", "no_proxy=n", "HOME=/h", "PATH=/opt/bin", "USER=ann", "PGDATA=/x"})
	want := []string{"HTTP_PROXY=h", "no_proxy=n", "HOME=/h", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/bin"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSubordinateIDs(t *testing.T) {
	u := &user.User{Username: "ann", Uid: "1001"}
	for _, tt := range []struct {
		file string
		has  bool
		free string
	}{
		{"", false, "100000-165535"},
		{"bob:100000:65536\n# ann\nannika:165536:10\n", false, "165546-231081"},
		{"ann:100000:65536\n", true, "165536-231071"},
		{"1001:1:1\n", true, "100000-165535"},
	} {
		if has, free := subordinateIDs(tt.file, u); has != tt.has || free != tt.free {
			t.Errorf("%q: got %v, %s", tt.file, has, free)
		}
	}
}
