// Guest is PID 1 of the machines that the tests in e2e boot. It mounts what a
// Linux system has everywhere, loads modules, and then runs what the host asks
// for over a virtio-serial port (package wire).
//
// It is two processes: PID 1 reaps whatever nobody else waits for, and restarts
// the machine, which ends QEMU, when the second one, the agent, ends.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if os.Getpid() != 1 {
		fatal(runAgent())
	}
	if err := setUp(); err != nil {
		fatal(err)
	}
	agent := exec.Command("/proc/self/exe")
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		fatal(err)
	}
	switchOnSignal()
	reapUntil(agent.Process.Pid)
	halt()
}

// reapUntil waits for every process that comes to PID 1 until pid has ended.
func reapUntil(pid int) {
	for {
		got, err := unix.Wait4(-1, nil, 0, nil)
		if got == pid || err == unix.ECHILD {
			return
		}
	}
}

// fatal shows the reason on the console, which the test keeps.
func fatal(err error) {
	fmt.Fprintf(os.Stderr, "e2e guest: %v\n", err)
	if os.Getpid() == 1 {
		halt()
	}
	os.Exit(1)
}

// halt restarts, which QEMU's -no-reboot turns into its own end.
func halt() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	time.Sleep(time.Minute)
}

// uptime is the time since the kernel started, with sleep counted.
func uptime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return time.Duration(ts.Nano())
}
