# Completion of lsub for PowerShell: put "lsub completion powershell | Out-String | Invoke-Expression"
# into your profile.
Register-ArgumentCompleter -Native -CommandName lsub -ScriptBlock {
    param($word, $ast, $position)
    $words = @($ast.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.StartOffset -lt $position } | ForEach-Object { $_.ToString() })
    if (-not $word) { $words += '""' }
    lsub complete '--' @words 2>$null | Where-Object { $_ -ne ':files' } | ForEach-Object {
        $name, $about = $_ -split "`t", 2
        if (-not $about) { $about = $name }
        [System.Management.Automation.CompletionResult]::new($name, $name, 'ParameterValue', $about)
    }
}
