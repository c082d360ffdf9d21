package loginitem

import (
	"encoding/binary"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf16"
)

// systemdUnit is the item as a unit of the user's systemd.
//
// At the end of the session, systemd would end lsub's supervisor and the
// hypervisor at the same time, which is to cut the VM's power. So it is told
// to leave them alone, and how to shut the VM down first.
func (i Item) systemdUnit() []byte {
	return fmt.Appendf(nil, `# Written by 'lsub manage --autostart=login'.
[Unit]
Description=Start the Linux distro %s (lsub)

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=%s
ExecStop=%s
KillMode=process
TimeoutStartSec=10min
TimeoutStopSec=2min

[Install]
WantedBy=default.target
`, i.Name, systemdCommand(i.Program, i.Args), systemdCommand(i.Program, i.StopArgs))
}

// systemdCommand quotes a command: '%' starts a specifier, and '$' a variable
// except in the program's path.
func systemdCommand(exe string, args []string) string {
	quote := func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(s) + `"`
	}
	words := []string{quote(exe)}
	for _, arg := range args {
		words = append(words, strings.ReplaceAll(quote(arg), "$", "$$"))
	}
	return strings.Join(words, " ")
}

// launchdAgent is the item as a property list for macOS' launchd, which is not
// to end what the job leaves running.
func (i Item) launchdAgent() []byte {
	var args strings.Builder
	for _, arg := range append([]string{i.Program}, i.Args...) {
		fmt.Fprintf(&args, "\t\t<string>%s</string>\n", xmlText(arg))
	}
	return fmt.Appendf(nil, `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- Written by 'lsub manage &#45;-autostart=login'. -->
<plist version="1.0">
<dict>
	<key>Label</key>
	<string>%s</string>
	<key>ProgramArguments</key>
	<array>
%s	</array>
	<key>RunAtLoad</key>
	<true/>
	<key>AbandonProcessGroup</key>
	<true/>
</dict>
</plist>
`, xmlText(launchdLabel(i.ID)), args.String())
}

func launchdLabel(id string) string { return "com.github.lsub." + id }

// windowsTask is the item as a task of Windows' scheduler, in the encoding that
// schtasks wants.
func (i Item) windowsTask() []byte {
	args := make([]string, len(i.Args))
	for n, arg := range i.Args {
		args[n] = windowsArg(arg)
	}
	text := fmt.Sprintf(`<?xml version="1.0" encoding="UTF-16"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Description>%s</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <UserId>%s</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>%[2]s</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>%s</Command>
      <Arguments>%s</Arguments>
    </Exec>
  </Actions>
</Task>
`, xmlText("Start the Linux distro "+i.Name+" (lsub)"), xmlText(i.User), xmlText(i.Program), xmlText(strings.Join(args, " ")))
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(strings.ReplaceAll(text, "\n", "\r\n"))) {
		out = binary.LittleEndian.AppendUint16(out, u)
	}
	return out
}

// windowsArg quotes an argument as Windows' programs take their command line
// apart: backslashes count before a quotation mark only.
func windowsArg(arg string) string {
	if arg != "" && !strings.ContainsAny(arg, " \t\"") {
		return arg
	}
	var b strings.Builder
	b.WriteByte('"')
	slashes := 0
	for _, c := range []byte(arg) {
		switch c {
		case '\\':
			slashes++
			continue
		case '"':
			slashes = 2*slashes + 1
		}
		b.WriteString(strings.Repeat(`\`, slashes))
		b.WriteByte(c)
		slashes = 0
	}
	b.WriteString(strings.Repeat(`\`, 2*slashes))
	b.WriteByte('"')
	return b.String()
}

func xmlText(s string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}
