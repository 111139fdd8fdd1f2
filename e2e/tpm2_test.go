package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestTPM2InTheGuest uses the kernel's own TPM device: the tests of tokens/tpm2 that
// need it, and the two commands as people use them.
func TestTPM2InTheGuest(t *testing.T) {
	t.Parallel()
	chip := testenv.StartTPM(t, testenv.TPMOptions{})
	chip.Stop()
	vm := Boot(t, Config{TPM: chip.StateDir()})
	vm.RunGoTests(t, "./tokens/tpm2", "^TestGuest")
	g := &tpmGuest{newUnit(t, vm), vm.Program(t, "./cryptenroll")}
	t.Run("life of a volume", g.life)
	t.Run("PIN at the console", g.pin)
}

// tpmGuest has a TPM and both commands.
type tpmGuest struct {
	*unit
	cryptenroll string
}

// run runs cryptenroll without terminal and wants this exit status.
func (g *tpmGuest) run(t *testing.T, status int, env []string, args ...string) Result {
	t.Helper()
	r := g.Start(t, Command{Args: append([]string{g.cryptenroll}, args...), Env: env}).Wait(t)
	if r.Status != status {
		t.Fatalf("cryptenroll %q: exit status %d, want %d\n%s%s", args, r.Status, status, r.Stdout, r.Stderr)
	}
	return r
}

func says(t *testing.T, what, text, pattern string) {
	t.Helper()
	if !regexp.MustCompile(pattern).MatchString(text) {
		t.Errorf("%s does not say %q:\n%s", what, pattern, text)
	}
}

var withPassphrase = []string{"PASSWORD=" + passphrase}

// life enrols on the only TPM, and names no way to unlock from then on: what is
// enrolled and present is tried before anybody is asked. Then an update moves PCR 11.
func (g *tpmGuest) life(t *testing.T) {
	image := copyOf(t, makeSample(t).image)
	node := g.AddDisk(t, Disk{Path: image})
	says(t, "the list", g.run(t, 0, nil, "--tpm2-device=list").Stdout, `/dev/tpmrm0 +\S.* sha256 .* \d of \d+`)
	enrolled := g.run(t, 0, withPassphrase, "--tpm2-device=auto", "--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", "--label=laptop", node).Stderr
	says(t, "enrolling", enrolled, `Enrolled .*keyslot 3 of .*: TPM2, PCR 7\+11`)
	says(t, "enrolling", enrolled, `UUID=\S+ none tpm2-device=auto\n`)
	says(t, "test", g.run(t, 0, nil, "test", node).Stdout, `keyslot 3 \(tpm2, "laptop"\) opens`)
	before := sumOf(t, g, node)
	says(t, "enrolling again", g.run(t, 0, nil, "--tpm2-device=auto", "--tpm2-pcrs=7+11", "--tpm2-pcrs-as-they-are", "--label=laptop", node).Stderr, `Nothing was written`)
	says(t, "reseal", g.run(t, 0, nil, "reseal", "--if-needed", node).Stderr, `nothing was written`)
	if sumOf(t, g, node) != before {
		t.Error("the header was changed")
	}
	// The update: the volume key goes into PCR 11.
	g.attach(t, "vol", node, "-", "headless,tpm2-measure-pcr=11")
	g.detach(t, "vol")
	moved := g.run(t, 7, nil, "test", "--unlock-tpm2-device=auto", node).Stderr
	says(t, "test", moved, `PCR 11 \(kernel-boot\) changed: 00000000… -> [0-9a-f]{8}…, volume-key cryptsetup:vol:\S+ is new`)
	says(t, "test", moved, `hint: .*cryptenroll reseal --slot=\d+ (--tpm2-device=\S+ )?`+node)
	says(t, "reseal", g.run(t, 0, withPassphrase, "reseal", "--tpm2-pcrs-as-they-are", node).Stderr, `the old key is wiped`)
	says(t, "test", g.run(t, 0, nil, "test", node).Stdout, `keyslot 3 \(tpm2, "laptop"\) opens`)
	g.attach(t, "vol", node, "-", "headless")
	if r := g.report(t, "vol"); r.Opened.By != "tpm2 token" {
		t.Errorf("report: %+v", r)
	}
}

// sumOf is the hash of a volume's header.
func sumOf(t *testing.T, g *tpmGuest, node string) string {
	t.Helper()
	return g.Shell(t, "dd if="+node+" bs=1M count=16 2>/dev/null | sha256sum").Stdout
}

// pin attaches at the console: the PIN is mistyped, the tries left are shown, and a
// TPM that is locked is told apart.
func (g *tpmGuest) pin(t *testing.T) {
	node := g.AddDisk(t, Disk{Path: copyOf(t, makeSample(t).image)})
	g.run(t, 0, append(withPassphrase, "NEWPIN="+devicePIN), "--tpm2-device=auto", "--tpm2-pcrs=7", "--tpm2-with-pin=direct", node)
	counter, limit := g.lockout(t)
	left := limit - counter
	if left < 2 {
		t.Fatalf("%d of %d wrong PINs are counted before the first", counter, limit)
	}
	attach := []string{"attach", "vol", node, "-", "tpm2-device=auto,password-cache=no"}
	p := g.onTerminal(t, attach...)
	p.Expect(t, fmt.Sprintf(`PIN of the TPM for vol, %d tries left`, left), slow)
	p.Write(t, "0000\r")
	p.Expect(t, `(?s)Wrong PIN.*PIN of the TPM for vol, .*(tries left|last try)`, slow)
	p.Write(t, devicePIN+"\r")
	if r := p.Wait(t); r.Status != 0 {
		t.Fatalf("exit status %d\n%s", r.Status, r.Stdout)
	}
	g.detach(t, "vol")
	if is, _ := g.lockout(t); is != counter+1 {
		t.Errorf("the counter went from %d to %d with one wrong PIN", counter, is)
	}
	p = g.onTerminal(t, attach...)
	for try := left - 1; try > 0; try-- {
		p.Expect(t, map[bool]string{true: `PIN of the TPM for vol, last try`, false: fmt.Sprintf(`vol, %d tries left`, try)}[try == 1], slow)
		p.Write(t, "0000\r")
	}
	p.Expect(t, fmt.Sprintf(`the TPM is locked \(%d of %d tries used up by wrong PINs or power cuts\); it forgets one every `, limit, limit), slow)
	p.Expect(t, `Please enter passphrase`, slow)
	p.Write(t, passphrase+"\r")
	r := p.Wait(t)
	t.Cleanup(func() { g.detach(t, "vol") })
	if a := g.report(t, "vol"); r.Status != 0 || !strings.HasPrefix(a.Opened.By, "passphrase") || len(a.Failures) != 1 || a.Failures[0].Exit != 8 {
		t.Errorf("exit status %d, report %+v\n%s", r.Status, a, r.Stdout)
	}
}

// lockout is how many wrong PINs the TPM counted and how many it takes.
func (g *tpmGuest) lockout(t *testing.T) (counter, limit int) {
	t.Helper()
	list := g.run(t, 0, nil, "--tpm2-device=list").Stdout
	m := regexp.MustCompile(`\d+ of \d+`).FindString(list)
	if _, err := fmt.Sscanf(m, "%d of %d", &counter, &limit); err != nil {
		t.Fatalf("no lockout counter in the list:\n%s", list)
	}
	return counter, limit
}
