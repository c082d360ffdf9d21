<#
.SYNOPSIS
Tests lsub on this Windows machine, and writes a report to send.

.DESCRIPTION
Needs Go, and the guest, which is made on Linux: 'gh run download -n guest-windows -D
images\guestimage\embedded\amd64' takes CI's. It changes nothing but its own folder and out\:
lsub's state is in a temporary folder, and no setting of Windows is touched.

The report says what this Windows is, which tests have passed, and what each command printed. It
names neither the user nor the machine.

.EXAMPLE
pwsh -File tools\windows-report.ps1
#>
[CmdletBinding()]
param(
    # Where the report goes.
    [string] $Report = 'lsub-windows-report.txt',
    # Fail where this machine cannot run VMs, in place of leaving those steps out.
    [switch] $NeedVM
)

Set-StrictMode -Version Latest
$ErrorActionPreference = 'Stop'
[Console]::OutputEncoding = [Text.UTF8Encoding]::new($false)
$Report = $ExecutionContext.SessionState.Path.GetUnresolvedProviderPathFromPSPath($Report)
Set-Location (Join-Path $PSScriptRoot '..')

$lines = [Collections.Generic.List[string]]::new()
$results = [Collections.Generic.List[string]]::new()
$failures = 0

function Add-Line([string] $Text) {
    # Neither the user's name nor the machine's.
    foreach ($private in $env:USERPROFILE, $env:USERNAME, $env:COMPUTERNAME) {
        if ($private -and $private.Length -gt 2) { $Text = $Text.Replace($private, '<private>') }
    }
    $lines.Add($Text)
    Write-Host $Text
}

# Runs a step and notes what it prints. It has passed where it throws nothing and the last
# program exits with 0.
function Invoke-Step([string] $Name, [scriptblock] $Action) {
    Add-Line ''
    Add-Line "== $Name"
    $global:LASTEXITCODE = 0
    $begin = Get-Date
    $why = ''
    # Windows PowerShell takes a program's stderr for an error.
    $before = $ErrorActionPreference
    try {
        $ErrorActionPreference = 'Continue'
        & $Action 2>&1 | ForEach-Object { Add-Line "$_" }
        if ($LASTEXITCODE -ne 0) { $why = "exit status $LASTEXITCODE" }
    } catch {
        $why = "$_"
    } finally {
        $ErrorActionPreference = $before
    }
    $seconds = [math]::Round(((Get-Date) - $begin).TotalSeconds, 1)
    if ($why) {
        $script:failures++
        $results.Add("FAILED  $Name ($seconds s): $why")
    } else {
        $results.Add("passed  $Name ($seconds s)")
    }
    return -not $why
}

function Add-Skipped([string] $Name, [string] $Why) { $results.Add("skipped $Name`: $Why") }

$homeDir = Join-Path ([IO.Path]::GetTempPath()) ('lsub-report-' + [guid]::NewGuid().ToString('N').Substring(0, 8))
$env:LSUB_HOME = $homeDir
$env:CGO_ENABLED = '0'
$lsub = Join-Path (Get-Location) 'bin\lsub.exe'

$null = Invoke-Step 'machine' {
    $os = Get-CimInstance Win32_OperatingSystem
    "$($os.Caption) $($os.Version), $env:PROCESSOR_ARCHITECTURE, PowerShell $($PSVersionTable.PSVersion)"
    $cpu = Get-CimInstance Win32_Processor | Select-Object -First 1
    "$($cpu.Name), $($cpu.NumberOfLogicalProcessors) processors, $([math]::Round($os.TotalVisibleMemorySize / 1MB)) GiB"
    $computer = Get-CimInstance Win32_ComputerSystem
    "a hypervisor runs: $($computer.HypervisorPresent); virtualization in the firmware: $($cpu.VirtualizationFirmwareEnabled)"
    "services: " + (@(Get-Service vmcompute, vmms, WslService, com.docker.service -ErrorAction SilentlyContinue | ForEach-Object { "$($_.Name) $($_.Status)" }) -join ', ')
    $identity = [Security.Principal.WindowsPrincipal][Security.Principal.WindowsIdentity]::GetCurrent()
    $admins = [Security.Principal.SecurityIdentifier]::new('S-1-5-32-544')
    $hyperV = [Security.Principal.SecurityIdentifier]::new('S-1-5-32-578')
    "administrator: $($identity.IsInRole($admins)); Hyper-V administrator: $($identity.IsInRole($hyperV))"
    "VPNs and policies for names: $(@(Get-ChildItem 'HKLM:\SYSTEM\CurrentControlSet\Services\Dnscache\Parameters\DnsPolicyConfig' -ErrorAction SilentlyContinue).Count)"
    go version
    git log -1 --format=%H
}
$built = Invoke-Step 'build' {
    $guest = "images\guestimage\embedded\$(go env GOARCH)\manifest.json"
    if (-not (Test-Path $guest)) { throw "$guest is missing: 'gh run download -n guest-windows -D images\guestimage\embedded\amd64' takes CI's" }
    go build -trimpath -o $lsub ./cmd/lsub
}
$null = Invoke-Step 'vet' { go vet ./... }
$null = Invoke-Step 'unit tests' { go test ./hypervisor/... ./machine ./cmd/lsub ./profile/... ./distro/... ./netstack/... ./atomicfile ./filelock }

if (-not $built) {
    Add-Skipped 'VMs' 'there is no program'
} else {
    $null = Invoke-Step 'version' { & $lsub version }
    Add-Line ''
    Add-Line '== doctor'
    & $lsub doctor 2>&1 | ForEach-Object { Add-Line "$_" }
    $runsVMs = $LASTEXITCODE -eq 0
    if (-not $runsVMs) {
        Add-Skipped 'VMs' "'lsub doctor' says what is missing"
        if ($NeedVM) { $failures++ }
    } else {
        try {
            $env:LSUB_TEST_VM = '1'
            $null = Invoke-Step 'conformance of the driver' { go test -count=1 -timeout 30m -run 'TestConformanceWindows$' -v ./hypervisor/hv_windows }
            Remove-Item Env:LSUB_TEST_VM
            $null = Invoke-Step 'a distro' { & $lsub run alpine -- uname -a }
            $null = Invoke-Step 'an exit status' {
                & $lsub exec alpine -- sh -c 'exit 7'
                if ($LASTEXITCODE -ne 7) { throw "exit status $LASTEXITCODE, want 7" }
                $global:LASTEXITCODE = 0
            }
            $null = Invoke-Step 'quoting' {
                $umlaut = [string][char]0xFC # Windows PowerShell reads this file as Latin-1
                $said = & $lsub exec alpine -- echo 'a b' '%PATH%' $umlaut
                if ($said -ne "a b %PATH% $umlaut") { throw "it said '$said'" }
            }
            $null = Invoke-Step 'names' { & $lsub exec alpine -- nslookup example.org }
            $null = Invoke-Step 'a forwarded port' {
                $server = Start-Process -PassThru -NoNewWindow $lsub -ArgumentList 'exec', 'alpine', '--', 'nc', '-l', '-p', '18080', '-e', 'cat'
                $client = $null
                for ($n = 0; $n -lt 100 -and -not $client; $n++) {
                    try { $client = [Net.Sockets.TcpClient]::new('127.0.0.1', 18080) } catch { Start-Sleep -Milliseconds 200 }
                }
                if (-not $client) { throw 'nobody listens on 127.0.0.1:18080' }
                $stream = $client.GetStream()
                $writer = [IO.StreamWriter]::new($stream)
                $writer.WriteLine('there and back')
                $writer.Flush()
                $said = [IO.StreamReader]::new($stream).ReadLine()
                $client.Close()
                if ($said -ne 'there and back') { throw "it said '$said'" }
                if (-not $server.WaitForExit(20000)) { $server.Kill() }
            }
            $null = Invoke-Step 'the VM as Windows lists it' {
                if (Get-Command hcsdiag -ErrorAction SilentlyContinue) {
                    hcsdiag list
                    $global:LASTEXITCODE = 0 # only administrators may
                }
            }
            $null = Invoke-Step 'status' { & $lsub status }
            $null = Invoke-Step 'speed' {
                "a command in a distro that runs: $((Measure-Command { & $lsub exec alpine -- true }).TotalMilliseconds) ms"
                & $lsub shutdown
                "a command where no VM runs: $((Measure-Command { & $lsub exec alpine -- true }).TotalMilliseconds) ms"
            }
        } finally {
            $null = Invoke-Step 'shutdown' { & $lsub shutdown }
            Add-Line ''
            Add-Line '== log of the supervisor'
            Get-Content (Join-Path $homeDir 'profiles\default\supervisor.log') -ErrorAction SilentlyContinue | Select-Object -Last 100 | ForEach-Object { Add-Line $_ }
            Remove-Item -Recurse -Force $homeDir -ErrorAction SilentlyContinue
        }
    }
}

Add-Line ''
Add-Line '== results'
$results | ForEach-Object { Add-Line $_ }
[IO.File]::WriteAllLines($Report, $lines, [Text.UTF8Encoding]::new($false))
Write-Host "the report is in $Report"
exit [int]($failures -gt 0)
