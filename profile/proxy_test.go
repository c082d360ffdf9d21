package profile

import (
	"slices"
	"strings"
	"testing"
)

func TestProxyEnv(t *testing.T) {
	const own = "http_proxy=http://p:1 HTTP_PROXY=http://p:1 no_proxy=.lsub.internal NO_PROXY=.lsub.internal"
	for _, tc := range []struct{ name, profile, env, want string }{
		{"none", "", "", ""},
		{"no_proxy alone", "", "no_proxy=x", ""},
		{"as it is", "", "http_proxy=http://p:1", own},
		{"capitals", "", "HTTP_PROXY=http://p:1", own},
		{"both", "", "http_proxy=http://p:1 HTTP_PROXY=http://q:2", own},
		{"all of them", "", "https_proxy=p:1 ALL_PROXY=socks5h://p:2 NO_PROXY=a.example,10.0.0.0/8",
			"https_proxy=p:1 HTTPS_PROXY=p:1 all_proxy=socks5h://p:2 ALL_PROXY=socks5h://p:2 no_proxy=a.example,10.0.0.0/8,.lsub.internal NO_PROXY=a.example,10.0.0.0/8,.lsub.internal"},
		{"none for anything", "", "http_proxy=p:1 no_proxy=*", "http_proxy=p:1 HTTP_PROXY=p:1 no_proxy=* NO_PROXY=*"},
		{"off", "network: {proxy: off}", "http_proxy=http://p:1", ""},
		{"the profile's", "network: {proxy: {http: 'http://p:1'}}", "http_proxy=http://q:2 no_proxy=x", own},
		{"the profile's on the host", "network: {proxy: {http: '127.0.0.1:1', no: [a, b]}}", "",
			"http_proxy=host.lsub.internal:1 HTTP_PROXY=host.lsub.internal:1 no_proxy=a,b,.lsub.internal NO_PROXY=a,b,.lsub.internal"},
		{"a closed host", "network: {host_access: no}", "http_proxy=http://localhost:1 https_proxy=http://p:1",
			"https_proxy=http://p:1 HTTPS_PROXY=http://p:1 no_proxy=.lsub.internal NO_PROXY=.lsub.internal"},
	} {
		p, err := Parse("p.yaml", []byte(tc.profile))
		if err != nil {
			t.Fatal(err)
		}
		got := p.Network.ProxyEnv(func(name string) string {
			for _, e := range strings.Fields(tc.env) {
				if v, ok := strings.CutPrefix(e, name+"="); ok {
					return v
				}
			}
			return ""
		})
		if !slices.Equal(got, strings.Fields(tc.want)) {
			t.Errorf("%s: %v, want %s", tc.name, got, tc.want)
		}
	}
}

func TestProxyFromVM(t *testing.T) {
	for in, want := range map[string]string{
		"http://localhost:3128":            "http://host.lsub.internal:3128",
		"http://u:p%40ss@127.0.0.1:3128/x": "http://u:p%40ss@host.lsub.internal:3128/x",
		"socks5://[::1]:1080":              "socks5://host.lsub.internal:1080",
		"http://127.9.9.9":                 "http://host.lsub.internal",
		"LOCALHOST:80":                     "host.lsub.internal:80",
		"http://0.0.0.0:1":                 "http://host.lsub.internal:1",
		"http://[::ffff:127.0.0.1]:1/":     "http://host.lsub.internal:1/",
		"http://px.localhost:1":            "http://host.lsub.internal:1",
		"http://localhost.example:1":       "http://localhost.example:1",
		"http://10.0.0.1:1":                "http://10.0.0.1:1",
		"http://u:%zz@127.0.0.1:1":         "http://u:%zz@127.0.0.1:1", // whatever that is
	} {
		if got, ok := proxyFromVM(in, true); got != want || !ok {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
