package hvwindows

// WindowsHost is the binding.
var WindowsHost Host = windowsHost{}
