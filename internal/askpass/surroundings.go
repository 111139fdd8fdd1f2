package askpass

import (
	"fmt"
	"os"
)

// ForUser chooses how to ask for a command that a person started: on the
// controlling terminal; without one, as in a service, by the password agents if
// systemd runs and we are root; else not at all. Close the console at the end.
func (o *Options) ForUser() {
	if console, err := OpenConsole("/dev/tty"); err == nil {
		o.Console = console
		return
	}
	if systemdRuns() && os.Geteuid() == 0 {
		o.AgentDir = AgentDir
	}
}

// ForBoot chooses how to ask while the system starts: by the password agents
// always; on the terminal too if there is one; and, where systemd does not run,
// so that nobody starts agents for the console and plymouth, there as well. An
// error of the console is reported, but the other ways remain. Close the console
// at the end.
func (o *Options) ForBoot() error {
	o.AgentDir = AgentDir
	console, err := OpenConsole("/dev/tty")
	if err == nil {
		o.Console = console
		return nil
	}
	if systemdRuns() {
		return nil
	}
	o.Plymouth = PlymouthSocket
	if o.Console, err = OpenConsole("/dev/console"); err != nil {
		o.Console = nil
		return fmt.Errorf("asking on the console: %w", err)
	}
	return nil
}

// systemdRuns is sd_booted(3).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
