package main

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/registry"
)

// TestProxySettings has a user set a proxy in Windows' settings. It writes them as Windows keeps
// them, and so only under Wine, where they are nobody's.
func TestProxySettings(t *testing.T) {
	if windows.NewLazySystemDLL("ntdll.dll").NewProc("wine_get_version").Find() != nil {
		t.Skip("it would change the settings of this user")
	}
	for _, v := range proxyVariables {
		t.Setenv(v, "")
	}
	k, _, err := registry.CreateKey(registry.CURRENT_USER, `Software\Microsoft\Windows\CurrentVersion\Internet Settings\Connections`, registry.SET_VALUE)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	settings := binary.LittleEndian.AppendUint32(nil, 0x46)
	settings = binary.LittleEndian.AppendUint32(settings, 1) // changes so far
	settings = binary.LittleEndian.AppendUint32(settings, 2) // a proxy is set
	for _, text := range []string{"p.example:3128", "*.corp.example;<local>", ""} {
		settings = append(binary.LittleEndian.AppendUint32(settings, uint32(len(text))), text...)
	}
	if err := k.SetBinaryValue("DefaultConnectionSettings", append(settings, make([]byte, 32)...)); err != nil {
		t.Fatal(err)
	}
	defer k.DeleteValue("DefaultConnectionSettings")
	takeProxies()
	if got := os.Getenv("HTTP_PROXY"); got != "http://p.example:3128" {
		t.Errorf("http_proxy is %q", got)
	}
	if got := os.Getenv("no_proxy"); got != ".corp.example" {
		t.Errorf("no_proxy is %q", got)
	}
	for _, v := range proxyVariables {
		os.Unsetenv(v)
	}
	os.Setenv("https_proxy", "http://mine:1")
	takeProxies()
	if got := os.Getenv("http_proxy"); got != "" {
		t.Errorf("beside a variable, http_proxy is %q", got)
	}
}
