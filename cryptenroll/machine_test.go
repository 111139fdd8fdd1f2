package main

import (
	"fmt"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/petest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/eventlog"
)

// cmdMachine makes a folder look like a machine:
//
//	machine loader ROOT VERSION    has a systemd-boot
//	machine image ROOT ID STUB KERNEL INITRD CMDLINE
//	                               has a unified kernel image with a stub of a version
//	machine entry ROOT ID KERNEL INITRD OPTIONS
//	                               has an entry with kernel and initrd as files
//	machine variable ROOT NAME TEXT  has another value in a variable of the firmware
//	machine start ROOT PATH [CHAIN]  was started from these files; so is the TPM, if
//	                               there is one. CHAIN is the real boot whose firmware
//	                               it has: uki, or ukisb for Secure Boot
func cmdMachine(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: machine loader|image|entry|variable|start ROOT …")
	}
	root, rest := ts.MkAbs(args[1]), args[2:]
	put := func(name string, content []byte) {
		ts.Check(boottest.Write(filepath.Join(root, boottest.ESP, name), content))
	}
	switch {
	case args[0] == "loader":
		put("EFI/BOOT/BOOTX64.EFI", petest.Loader(rest[0]))
		put("loader/loader.conf", []byte("timeout 3\n"))
	case args[0] == "image" && len(rest) == 5:
		put("EFI/Linux/"+rest[0]+".efi", petest.Image(rest[1], petest.Kernel(rest[2]), []byte(rest[3]), rest[4]))
	case args[0] == "entry" && len(rest) == 4:
		put(rest[0]+"/linux", petest.Kernel(rest[1]))
		put(rest[0]+"/initrd", []byte(rest[2]))
		put("loader/entries/"+rest[0]+".conf", fmt.Appendf(nil, "title Linux\nversion %[2]s\nlinux /%[1]s/linux\ninitrd /%[1]s/initrd\noptions %[3]s\n", rest[0], rest[1], rest[3]))
	case args[0] == "variable" && len(rest) == 2:
		ts.Check(boottest.SetVariable(root, rest[0], []byte(rest[1])))
	case args[0] == "start":
		devicesOf(ts).startMachine(ts, root, append(rest, "uki"))
	default:
		ts.Fatalf("machine %q: unknown", args)
	}
}

func (d *devices) startMachine(ts *testscript.TestScript, root string, args []string) {
	boots := boottest.Load(d.t, d.boots, args[1])
	events, err := boottest.Start(boots["base"], root, args[0])
	ts.Check(err)
	if d.chip == nil {
		return
	}
	d.chip.Reset()
	for pcr := range 16 {
		for _, e := range eventlog.Of(events, pcr) {
			d.chip.Extend(pcr, chain.Bank, e.Digests[chain.Bank])
		}
	}
}
