package agent

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lsub/lsub/guest/guestv1"
)

func TestOverruled(t *testing.T) {
	got := overruled([]sysctlMaker{
		{id: "1", name: "first", settings: map[string]string{"vm.a": "1", "vm.b": "1", "vm.same": "5"}},
		{id: "2", name: "second", settings: map[string]string{"vm.a": "2", "vm.same": "5"}},
		{id: "3", name: "third", settings: map[string]string{"vm.a": "1", "vm.b": "3"}},
	})
	want := map[string][]*guestv1.OverruledSetting{
		"1": {{Name: "vm.b", Value: "1", By: "third", ByValue: "3"}}, // vm.a has its value again
		"2": {{Name: "vm.a", Value: "2", By: "third", ByValue: "1"}},
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for id, settings := range want {
		if len(got[id]) != len(settings) {
			t.Fatalf("distro %s: got %v", id, got[id])
		}
		for i, s := range settings {
			if !proto.Equal(got[id][i], s) {
				t.Errorf("distro %s: got %v, want %v", id, got[id][i], s)
			}
		}
	}
}
