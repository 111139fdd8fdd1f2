package main

import (
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// newRoot is where the host has prepared the root of another system.
const newRoot = "/newroot"

// switchOnSignal makes PID 1 become the init of the system in /newroot at SIGUSR1
// (VM.SwitchRoot). The agent goes on with the old root: mounts made there before
// are in both, and /proc/1/root leads from it to the new one.
func switchOnSignal() {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGUSR1)
	go func() {
		<-asked
		fatal(switchRoot(initOf(newRoot)))
	}()
}

// initOf is the init of a system: systemd need not have the usual name.
func initOf(root string) string {
	const usual = "/sbin/init"
	if _, err := os.Lstat(root + usual); err == nil {
		return usual
	}
	return "/lib/systemd/systemd"
}

func switchRoot(init string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("binding %s: %w", dir, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(newRoot, "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving %s: %w", newRoot, err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return fmt.Errorf("running %s: %w", init, unix.Exec(init, []string{init}, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TERM=dumb"}))
}
