package dmcrypt

import (
	"bufio"
	"os"
	"strings"
	"time"
)

const (
	procModules = "/proc/modules"
	loadLimit   = 10 * time.Second
)

// awaitModule waits while another process loads a kernel module, and reports
// whether it is there then.
//
// The kernel's own request for a module ends when modprobe does, and busybox's ends
// at once when somebody else is already loading the module. So of two volumes that
// are attached at the same time one would be told that there is no dm-crypt.
func awaitModule(list, name string, limit time.Duration) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		switch state := moduleState(list, name); {
		case state == "Live":
			return true
		case state != "Loading" || time.Now().After(deadline):
			return false
		}
	}
}

// moduleState is the fifth field of /proc/modules, "" for a module that is not
// there or built in.
func moduleState(list, name string) string {
	f, err := os.Open(list)
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 5 && fields[0] == name {
			return fields[4]
		}
	}
	return ""
}
