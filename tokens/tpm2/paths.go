package tpm2

import "path/filepath"

// Paths are the files and folders of the machine that the handler looks at. The
// zero value means the usual ones; Root moves all of them.
type Paths struct {
	// Root is put before every path below; empty is /.
	Root string
}

func (p Paths) join(path string) string { return filepath.Join("/", p.Root, path) }

// firmwareLog is the log of the events that the firmware and the boot loader
// measured.
func (p Paths) firmwareLog() string {
	return p.join("/sys/kernel/security/tpm0/binary_bios_measurements")
}

// userspaceLog is what systemd, and [MeasureVolumeKey], measured since.
func (p Paths) userspaceLog() string { return p.join("/run/log/systemd/tpm2-measure.log") }

// state is where the event log of an enrolment is kept in full.
func (p Paths) state() string { return p.join("/var/lib/luksmith") }

// configFolders are where systemd looks for the files of signed policies: in the
// initrd also where the boot stub puts what comes with the kernel.
func (p Paths) configFolders() []string {
	return []string{p.join("/etc/systemd"), p.join("/run/systemd"), p.join("/usr/local/lib/systemd"), p.join("/usr/lib/systemd"), p.join("/.extra")}
}

// pcrlockFiles are where systemd-pcrlock leaves its policy.
func (p Paths) pcrlockFiles() []string {
	return []string{p.join("/run/systemd/pcrlock.json"), p.join("/var/lib/systemd/pcrlock.json")}
}
