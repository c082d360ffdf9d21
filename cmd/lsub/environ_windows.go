package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/lsub/lsub/profile"
)

// proxyVariables are those by which programs find proxies.
var proxyVariables = []string{"http_proxy", "https_proxy", "all_proxy", "no_proxy"}

// takeProxies sets the variables of proxies, unless one is set, to Windows' settings for this
// user, or else to those for the machine. Our own downloads and the distros go by them.
func takeProxies() {
	for _, v := range proxyVariables { // Windows' variables have no case
		if os.Getenv(v) != "" {
			return
		}
	}
	servers, bypass := userProxy()
	if servers == "" {
		servers, bypass = machineProxy()
	}
	for name, value := range profile.WindowsProxy(servers, bypass) {
		os.Setenv(name, value)
	}
}

var (
	winhttp         = windows.NewLazySystemDLL("winhttp.dll")
	procUserProxy   = winhttp.NewProc("WinHttpGetIEProxyConfigForCurrentUser")
	procSystemProxy = winhttp.NewProc("WinHttpGetDefaultProxyConfiguration")
	procGlobalFree  = windows.NewLazySystemDLL("kernel32.dll").NewProc("GlobalFree")
)

// userProxy returns what the user has set in Windows' settings. A script that finds proxies is
// not run.
func userProxy() (servers, bypass string) {
	var c struct { // WINHTTP_CURRENT_USER_IE_PROXY_CONFIG
		autoDetect             int32
		script, proxy, without *uint16
	}
	if procUserProxy.Find() != nil {
		return "", ""
	}
	// The strings are ours to free.
	if ok, _, _ := procUserProxy.Call(uintptr(unsafe.Pointer(&c))); ok == 0 {
		return "", ""
	}
	globalText(c.script)
	return globalText(c.proxy), globalText(c.without)
}

// machineProxy returns what 'netsh winhttp set proxy' has set.
func machineProxy() (servers, bypass string) {
	var c struct { // WINHTTP_PROXY_INFO
		access         uint32
		proxy, without *uint16
	}
	if procSystemProxy.Find() != nil {
		return "", ""
	}
	if ok, _, _ := procSystemProxy.Call(uintptr(unsafe.Pointer(&c))); ok == 0 {
		return "", ""
	}
	return globalText(c.proxy), globalText(c.without)
}

// globalText returns a string by GlobalAlloc, and frees it.
func globalText(s *uint16) string {
	if s == nil {
		return ""
	}
	defer procGlobalFree.Call(uintptr(unsafe.Pointer(s)))
	return windows.UTF16PtrToString(s)
}
