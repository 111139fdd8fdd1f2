// Package e2e boots virtual machines and runs luksmith in them, with a real kernel,
// dm-crypt, disks and USB sticks that come and go, and a TPM. Nothing imports it:
// it is the harness of its own tests.
//
// A guest is Debian's kernel (unpacked by .ci/install-deps into the user's cache
// folder, not installed) and an initrd that is written here: PID 1 ([luksmith/e2e/guest]),
// busybox, kernel modules, cryptsetup, dmsetup. There is no udevd and no systemd
// unless a test brings them. It boots in about three seconds where KVM does not
// work and in less than one where it does.
//
//	vm := e2e.Shared(t)                                   // t.Parallel; or Boot(t, Config{…})
//	disk := vm.AddDisk(t, e2e.Disk{Path: image})          // "/dev/sda"
//	vm.Run(t, "cryptsetup", "isLuks", disk)               // exit status 0 or the test ends
//	p := vm.Start(t, e2e.Command{Args: …, Terminal: true})
//	p.Expect(t, "passphrase", time.Second)
//	p.Write(t, "secret\n")
//	result := p.Wait(t)                                   // output, status, CPU time
//
// With Config.Firmware the guest starts from its first disk as machines do: OVMF, a boot
// loader, an entry, whose initrd has PID 1. Its TPM then holds what was measured, and
// from boot to boot firmware variables, TPM and disks stay ([VM.Restart]).
//
// VM.RunGoTests runs tests of another package in the guest: those that map devices
// or mount. They are called TestGuest…, begin with testenv.NeedGuest, which skips
// them on the machine itself, and their packages are listed in packages_test.go.
//
// # A guest by hand
//
// `go test ./e2e -run TestInteractive -args -shell` boots a guest and connects the
// terminal to a shell in it; leave it with exit. More than the usual goes in through
// the environment:
//
//	LUKSMITH_E2E_DISKS=a.img,b.img   become /dev/vda and /dev/vdb
//	LUKSMITH_E2E_TPM=DIR             state folder of a swtpm
//	LUKSMITH_E2E_ACCEL=kvm|tcg       instead of finding out whether KVM works
//
// A test that fails prints the end of the guest's console.
package e2e
