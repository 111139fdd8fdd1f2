package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"luksmith/internal/test/fidotest"
	"luksmith/internal/test/testenv"
)

// fidoSeed makes the key of the host and that of the machine the same one.
const fidoSeed = "e2e"

// dracutHooks is where an image of dracut has its hooks, without links on the way.
var dracutHooks = map[string]string{"bookworm": "usr/lib/dracut/hooks", "trixie": "var/lib/dracut/hooks"}

// testFIDO2 boots with a FIDO2 key of software that is plugged in while the machine
// boots, and without.
func (d *distro) testFIDO2(t *testing.T, tool, image string) {
	disk, plug := d.keyed(t, d.packed), d.virtualKey(t)
	for _, c := range []cell{
		{name: "key", change: plug(""), by: "fido2 token"},
		{name: "other key", change: plug("x")},
		{name: "no key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			once(t)
			c.disk = func(*distro) string { return disk }
			c.run(t, d, tool, image)
		})
	}
}

// virtualKey has images plug in the FIDO2 key, or another one by its arguments.
func (d *distro) virtualKey(t *testing.T) (plug func(args string) func(*archive)) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	cmd := exec.Command("go", "build", "-o", key, "luksmith/internal/test/fidotest/virtual-key")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	program, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	return func(args string) func(*archive) {
		script := []byte("#!/bin/sh\n[ \"$1\" != prereqs ] || exit 0\nmodprobe -a uhid hid-generic\n(sleep 100000 | /e2e-key --uhid --seed=" + fidoSeed + args + " >/dev/null 2>&1 &)\n")
		return func(a *archive) {
			a.file("e2e-key", 0o755, program)
			a.file("scripts/init-premount/ORDER", 0o644, []byte("/scripts/init-premount/e2e\n"))
			a.file("scripts/init-premount/e2e", 0o755, script)
			a.file(dracutHooks[d.suite]+"/pre-trigger/00-e2e.sh", 0o755, script)
		}
	}
}

// keyed is a copy of a volume, with a keyslot for the FIDO2 key.
func (d *distro) keyed(t *testing.T, volume string) string {
	t.Helper()
	image := filepath.Join(t.TempDir(), "keyed")
	testenv.Run(t, "cp", "--sparse=always", volume, image)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	path, err := fidotest.New(fidotest.Config{Seed: fidoSeed}).Terminal(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("../build/cryptenroll", "--unlock-key-file="+d.packed+".pass", "--fido2-device="+path, image)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return image
}
