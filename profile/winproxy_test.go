package profile

import (
	"maps"
	"testing"
)

func TestWindowsProxy(t *testing.T) {
	for _, c := range []struct {
		servers, bypass string
		want            map[string]string
	}{
		{"", "*.example", map[string]string{}},
		{"p.example:3128", "", map[string]string{"http_proxy": "http://p.example:3128", "https_proxy": "http://p.example:3128"}},
		{"HTTP=p:80;https=https://q:443 socks=s:1080;ftp=f:21", "a.example;*.corp.example;<local>;10.*;",
			map[string]string{"http_proxy": "http://p:80", "https_proxy": "https://q:443", "all_proxy": "socks5://s:1080", "no_proxy": "a.example,.corp.example"}},
		{"https=q:1", "<local>", map[string]string{"https_proxy": "http://q:1"}},
		{"p:1", "*", map[string]string{}},
		{"http=", "", map[string]string{}},
	} {
		if got := WindowsProxy(c.servers, c.bypass); !maps.Equal(got, c.want) {
			t.Errorf("%q but %q: %v, want %v", c.servers, c.bypass, got, c.want)
		}
	}
}
