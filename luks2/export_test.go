package luks2

import "io"

// File is what the tests see of the header device.
type File interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Observe puts a recorder between the Device and its header device.
func Observe(d *Device, wrap func(File) File) {
	d.observe = func(s storage) storage { return wrap(s) }
}

// HasReserved reports whether there is memory for the next key derivation.
func (d *Device) HasReserved() bool {
	d.workspace.mu.Lock()
	defer d.workspace.mu.Unlock()
	return len(d.workspace.idle)+d.workspace.running > 0
}
