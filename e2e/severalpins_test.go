package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// severalPINs attaches two volumes with TPM and PIN, and one with a passphrase, at a
// terminal: each question comes when the one before is done, what was wrong is said
// under it, and the order is that of crypttab.
func severalPINs(t *testing.T, u *unit, image string) {
	var lines strings.Builder
	for i, options := range []string{"tpm2-device=auto", "", "tpm2-device=auto"} {
		node := u.AddDisk(t, Disk{Path: otherUUID(t, copyOf(t, image), i+1)})
		fmt.Fprintf(&lines, "v%d %s - password-cache=no,%s\n", i, node, options)
	}
	u.WriteFile(t, "/run/crypttab", []byte(strings.ReplaceAll(lines.String(), ",\n", ",key-slot=0\n")), 0o600)
	p := u.onTerminal(t, "attach-all", "--crypttab=/run/crypttab")
	p.Expect(t, `PIN of the TPM for v0`, slow)
	p.Write(t, "0000\r")
	p.Expect(t, `(?s)Wrong PIN.*PIN of the TPM for v0`, slow)
	p.Write(t, devicePIN+"\r")
	p.Expect(t, `Please enter passphrase .*v1`, slow)
	p.Write(t, "another\r")
	p.Expect(t, `(?s)Wrong passphrase.*Please enter passphrase .*v1`, slow)
	if shown := p.Expect(t, `(?s).*`, slow)[0]; strings.Contains(shown, "v2") {
		t.Errorf("the third volume is asked about while the second is closed:\n%s", shown)
	}
	p.Write(t, passphrase+"\r")
	r := p.Wait(t) // the passphrase opens the third as well
	if r.Status != 0 {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	t.Logf("the terminal:\n%s", r.Stdout)
	for i := range 2 {
		u.Run(t, u.path, "detach", fmt.Sprintf("v%d", i))
	}
	u.detach(t, "v2")
}
