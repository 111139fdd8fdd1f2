package askpass

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
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

// lonely is how long a question at boot is open that neither a console nor plymouth
// can show: whoever started us may have another way to ask.
const lonely = 30 * time.Second

// activeConsoles names the consoles of the kernel, the one of /dev/console last.
const activeConsoles = "/sys/class/tty/console/active"

// ForBoot chooses how to ask while the system starts: by the password agents
// always; on the terminal too if there is one; and, where systemd does not run,
// so that nobody starts agents for the consoles and plymouth, there as well. An
// error of the console is reported, but the other ways remain. Call
// [Options.CloseConsoles] at the end.
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
	o.Plymouth, o.AgentPatience = PlymouthSocket, lonely
	if o.Console, o.Consoles, err = openConsoles(activeConsoles, "/dev"); err != nil {
		return fmt.Errorf("asking on the console: %w", err)
	}
	return nil
}

// openConsoles opens every terminal that the kernel has for a console, and
// /dev/console if that is not one of them. The first result is the one of
// /dev/console, to which the messages of the command go.
func openConsoles(active, dev string) (primary *Console, others []*Console, err error) {
	text, _ := os.ReadFile(active) // without sysfs there is /dev/console
	names := strings.Fields(string(text))
	if len(names) < 2 {
		names = []string{"console"}
	}
	for i, name := range slices.Backward(names) {
		console, openErr := OpenConsole(filepath.Join(dev, name))
		if openErr != nil && i == len(names)-1 && name != "console" {
			console, openErr = OpenConsole(filepath.Join(dev, "console")) // its own node may be missing
		}
		switch {
		case openErr != nil: // a serial port without hardware is common
			err = cmp.Or(err, openErr)
		case primary == nil:
			primary = console
		default:
			others = append(others, console)
		}
	}
	if primary != nil {
		err = nil
	}
	return primary, others, err
}

// CloseConsoles closes what ForUser or ForBoot opened.
func (o *Options) CloseConsoles() {
	for _, c := range append([]*Console{o.Console}, o.Consoles...) {
		if c != nil {
			c.Close()
		}
	}
}

// systemdRuns is sd_booted(3).
func systemdRuns() bool {
	info, err := os.Lstat("/run/systemd/system")
	return err == nil && info.IsDir()
}
