package account

import (
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseLimits(t *testing.T) {
	const group = "root:x:0:\naudio:x:29:ann\nann:x:1000:\n"
	conf := []byte("# a comment\n*  soft nofile 2048 # more\n*\t-\tcore\tunlimited\n@audio - rtprio 95\n@audio hard memlock 1024\nann hard nofile 9000\n" +
		"ann soft nosuch 1\nann soft\nbob - nofile 1\n@nobody - nofile 2\n* hard nofile ten\n")
	later := []byte("* soft nofile 4096\n* hard nofile 5000\n@audio - rtprio 90\nroot - nofile 100\n")
	ann := &Account{Name: "ann", UID: 1000, GID: 1000, Groups: []uint32{29}}
	got := map[int][2]uint64{}
	now := unix.Rlimit{Cur: 1024, Max: 524288}
	for _, l := range parseLimits([][]byte{conf, later}, ann, []byte(group)) {
		r := l.Over(now)
		got[l.Resource] = [2]uint64{r.Cur, r.Max}
	}
	for resource, want := range map[int][2]uint64{
		unix.RLIMIT_NOFILE:  {4096, 9000}, // her own line counts before the later one for all
		unix.RLIMIT_CORE:    {unix.RLIM_INFINITY, unix.RLIM_INFINITY},
		unix.RLIMIT_RTPRIO:  {90, 90},
		unix.RLIMIT_MEMLOCK: {1024, 1 << 20}, // in KiB; the soft one stays
	} {
		if got[resource] != want {
			t.Errorf("resource %d: %v, want %v", resource, got[resource], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("limits %v", got)
	}
	// Root has what names root, and nothing else.
	limits := parseLimits([][]byte{conf, later}, Root(), []byte(group))
	if len(limits) != 1 || limits[0].Over(now) != (unix.Rlimit{Cur: 100, Max: 100}) {
		t.Errorf("root: %+v", limits)
	}
	// A hard limit takes the soft one down with it.
	if got := (Limit{Hard: new(uint64)}).Over(now); got != (unix.Rlimit{}) {
		t.Errorf("a hard limit of 0: %+v", got)
	}
	if !slices.Contains(limitFiles(), "/etc/security/limits.conf") {
		t.Error("limits.conf is not read")
	}
}
