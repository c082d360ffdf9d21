package names

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestRules(t *testing.T) {
	server := func(text string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(text), 53) }
	usual := Resolv{Servers: []netip.AddrPort{server("192.0.2.1")}, Search: []string{"example"}}
	got := usual.withRules([]Rule{
		{[]string{".corp.example", "Host.other.example"}, "10.0.0.1;10.0.0.2", RuleServers},
		{[]string{".corp.example"}, "10.9.9.9", RuleServers}, // the first one counts
		{[]string{".dnssec.example"}, "", 2},
		{[]string{".direct.example"}, "10.0.0.3", 4},
		{[]string{".bad.example"}, "server.example; x", RuleServers},
		{[]string{"prefix", "", ".."}, "10.0.0.4", RuleServers},
		{[]string{".six.example"}, "fd00::1", RuleServers | 2},
	})
	want := usual
	both := []netip.AddrPort{server("10.0.0.1"), server("10.0.0.2")}
	want.Routes = []Route{{"corp.example", both}, {"host.other.example", both}, {"six.example", []netip.AddrPort{server("fd00::1")}}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with the rules it is %+v,\nwant %+v", got, want)
	}
	all := usual.withRules([]Rule{{[]string{"."}, "10.0.0.5", RuleServers}})
	if !reflect.DeepEqual(all.Servers, []netip.AddrPort{server("10.0.0.5")}) {
		t.Errorf("a rule for all names leaves the servers %v", all.Servers)
	}
}
