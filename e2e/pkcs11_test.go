package e2e

import (
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// The token of the store in tokens/pkcs11/testdata: an RSA-2048 key 01 "rsa" and a
// P-256 key 02 "ec".
const (
	storeFolder = "../tokens/pkcs11/testdata/softhsm"
	cardPIN     = "1234"
	pivPIN      = "654321"
)

// TestSmartcards unlocks volumes with PKCS#11 tokens at boot. One guest is for all.
func TestSmartcards(t *testing.T) {
	if testing.Short() {
		testenv.NotApplicable(t, "short mode")
	}
	c := bootCards(t)
	rsa, _ := c.volume(t, "257", "rsa")
	ec, _ := c.volume(t, "257", "ec")

	// Runs beside the others: nobody is asked, so it lasts until the module's time is up.
	hanging := c.Start(t, Command{Args: []string{c.path, "attach", "hanging", rsa, "-", "pkcs11-uri=auto,pkcs11-module=/usr/lib/fault.so,headless"}, Env: faulty("hang-initialize")})

	t.Run("boot with PIN from a person", func(t *testing.T) { c.bootWithPrompt(t, rsa) })
	t.Run("boot with PIN from a credential", func(t *testing.T) { c.bootWithCredential(t, ec) })
	t.Run("passphrase beside a hanging module", func(t *testing.T) { c.passphraseBesideHangingModule(t, rsa) })
	t.Run("crashing module", func(t *testing.T) { c.crashingModule(t, rsa) })
	t.Run("wrong PIN with three keyslots", func(t *testing.T) { c.wrongPIN(t) })
	t.Run("several cards", func(t *testing.T) { c.severalCards(t) })
	t.Run("module named by the header", func(t *testing.T) { c.moduleOfTheHeader(t) })
	t.Run("volume without tokens", func(t *testing.T) { c.withoutTokens(t) })
	t.Run("token that appears", func(t *testing.T) { c.tokenThatAppears(t, ec) })
	t.Run("card put into a reader", func(t *testing.T) { c.cardIntoReader(t) })

	t.Run("hanging module is gone at its deadline", func(t *testing.T) {
		r := hanging.Wait(t)
		if r.Status != 10 || strings.Count(r.Stderr, "a PKCS#11 module does not answer") != 1 {
			t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
		}
		if took := r.Ended - r.Started; took < 30*time.Second || took > 90*time.Second {
			t.Errorf("took %v", took)
		}
		if left := c.helpers(t); left != "" {
			t.Errorf("still there:\n%s", left)
		}
	})
}

// bootWithPrompt does what an initrd does: everything comes from /etc/crypttab.
func (c *cards) bootWithPrompt(t *testing.T, disk string) {
	c.WriteFile(t, "/etc/crypttab", []byte("vol "+disk+" none pkcs11-uri=auto,x-initrd.attach\n"), 0o600)
	agent := c.agent(t, "PIN:+0000", "PIN:+"+cardPIN)
	r := c.start(t, "attach-all", "--initrd").Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || c.contents(t, "vol") != inside {
		t.Fatalf("exit status %d\n%s", r.Status, r.Stderr)
	}
	if asked := agent.Wait(t).Stdout; strings.Count(asked, "Message=PIN of luksmith") != 2 {
		t.Errorf("asked: %s", asked)
	}
	if got := c.report(t, "vol"); got.Opened.By != "pkcs11 token" || *got.Opened.Keyslot != 3 {
		t.Errorf("report: %+v", got)
	}
}

// bootWithCredential asks nobody.
func (c *cards) bootWithCredential(t *testing.T, disk string) {
	c.WriteFile(t, "/etc/crypttab", []byte("vol "+disk+" none pkcs11-uri=pkcs11:token=luksmith,headless,x-initrd.attach\n"), 0o600)
	c.WriteFile(t, "/run/credentials/cryptsetup.pkcs11-pin", []byte(cardPIN), 0o600)
	r := c.Start(t, Command{Args: []string{c.path, "attach-all", "--initrd"}, Env: []string{"CREDENTIALS_DIRECTORY=/run/credentials"}}).Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || c.contents(t, "vol") != inside || r.Stderr != "" {
		t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
	}
}

// passphraseBesideHangingModule types a second after the start. A prompt that the
// module holds up would come after three seconds. A busy host gets several chances,
// and then as much time as it takes without any module.
func (c *cards) passphraseBesideHangingModule(t *testing.T, disk string) {
	const chances = 3
	var took time.Duration
	for chance := range chances {
		took = c.typedAtOneSecond(t, disk, "pkcs11-uri=auto,pkcs11-module=/usr/lib/fault.so")
		if left := strings.Count(c.helpers(t), "\n") - 1; left > 0 { // one runs beside
			t.Fatalf("%d helpers are left", left)
		}
		if took < 3*time.Second {
			t.Logf("mapped after %v, at chance %d", took, chance+1)
			return
		}
	}
	if alone := c.typedAtOneSecond(t, disk, "password-cache=no"); took > alone+time.Second {
		t.Errorf("mapped after %v, without a module after %v", took, alone)
	}
}

// typedAtOneSecond is how long an attach takes from its start.
func (c *cards) typedAtOneSecond(t *testing.T, disk, options string) time.Duration {
	t.Helper()
	p := c.Start(t, Command{Args: []string{c.path, "attach", "vol", disk, "-", options}, Env: faulty("hang-initialize"), Terminal: true})
	time.Sleep(time.Second)
	p.Write(t, passphrase+"\n")
	if !p.until(10*time.Second, func() bool { return p.exit != nil }) { // typed before anybody listened
		p.Expect(t, "Please enter passphrase", slow)
		p.Write(t, passphrase+"\n")
	}
	r := p.Wait(t)
	if by := c.report(t, "vol").Opened.By; r.Status != 0 || !strings.HasPrefix(by, "passphrase") {
		t.Fatalf("exit status %d, opened by %s\n%s", r.Status, by, r.Stdout)
	}
	c.detach(t, "vol")
	return r.Ended - r.Started
}

// crashingModule costs one line.
func (c *cards) crashingModule(t *testing.T, disk string) {
	p := c.Start(t, Command{Args: []string{c.path, "attach", "vol", disk, "-", "pkcs11-uri=auto,pkcs11-module=/usr/lib/fault.so"}, Env: faulty("crash-initialize"), Terminal: true})
	p.Expect(t, "SIGSEGV", slow)
	p.Expect(t, "Please enter passphrase", slow)
	p.Write(t, passphrase+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || strings.Count(r.Stdout, "cryptsetup-unit:") != 1 || strings.Count(r.Stdout, "SIGSEGV") != 1 {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
}

// wrongPIN counts the logins at the module.
func (c *cards) wrongPIN(t *testing.T) {
	disk, _ := c.volume(t, "257", "rsa", "ec", "rsa")
	p := c.Start(t, Command{Args: []string{c.path, "attach", "vol", disk, "-", "pkcs11-uri=auto,pkcs11-module=" + testenv.Spy(t)},
		Env: []string{"PKCS11SPY=" + hsmModule, "PKCS11SPY_OUTPUT=/run/spy.log"}, Terminal: true})
	p.Expect(t, "PIN of luksmith", slow)
	p.Write(t, "0000\n")
	p.Expect(t, "(?s)Wrong PIN.*PIN of luksmith", slow)
	p.Write(t, "0001\n")
	p.Expect(t, "(?s)(Wrong PIN.*){2}PIN of luksmith", slow)
	p.Write(t, "0002\n")
	p.Expect(t, "(?s)wrong PIN: logging in.*Please enter passphrase", slow)
	p.Write(t, passphrase+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
	if n := strings.TrimSpace(c.Shell(t, "grep -c ': C_Login$' /run/spy.log").Stdout); n != "3" {
		t.Errorf("three questions made %s logins", n)
	}
}

// severalCards has two cards in and a volume with a keyslot for each: for systemd's
// pkcs11-uri=auto they are one too many.
func (c *cards) severalCards(t *testing.T) {
	store := testenv.NewSoftHSM(t)
	store.Restore(t, storeFolder)
	twin := testenv.Token{Label: "twin", PIN: "5678"}
	store.AddToken(t, twin)
	store.Tool(t, twin, "--login", "--keypairgen", "--key-type", "EC:prime256v1", "--usage-derive", "--id", "02", "--label", "ec")
	image := copyOf(t, makeSample(t).image)
	for token, pin := range map[string]string{"luksmith": cardPIN, "twin": twin.PIN} {
		if err := execute(append(store.Env, "PASSWORD="+passphrase, "PIN="+pin), nil, cryptenroll(t), "--pkcs11-token-uri=pkcs11:token="+token+";object=ec", "--compat=257", image); err != nil {
			t.Fatal(err)
		}
	}
	folder := t.TempDir()
	env := store.CopyTo(t, folder, "/run/twins")
	c.Shell(t, "cp -r "+c.Push(t, folder)+" /run/twins")
	disk := c.AddDisk(t, Disk{Path: image})
	p := c.Start(t, Command{Args: []string{c.path, "attach", "vol", disk, "-", "pkcs11-uri=auto"}, Env: env, Terminal: true})
	// Whichever comes first: the person has forgotten that PIN, but knows the other.
	first := p.Expect(t, `PIN of (luksmith|twin)[^\n]*: `, slow)[1]
	for n := 1; n <= 3; n++ {
		p.Write(t, "0000\n")
		p.Expect(t, `(?s)(Wrong PIN.*){`+string(rune('0'+min(n, 2)))+`}PIN of `, slow)
	}
	other, pin := "twin", twin.PIN
	if first == "twin" {
		other, pin = "luksmith", cardPIN
	}
	p.Expect(t, "PIN of "+other, slow)
	p.Write(t, pin+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || c.report(t, "vol").Opened.By != "pkcs11 token" {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
}

// moduleOfTheHeader has a module and a PIN in the URI of the token.
func (c *cards) moduleOfTheHeader(t *testing.T) {
	_, image := c.volume(t, "257", "ec")
	image = copyOf(t, image)
	token := regexp.MustCompile(`type=private`).ReplaceAllString(
		testenv.Run(t, "cryptsetup", "token", "export", "--token-id", "1", image), "type=private?module-path=/usr/lib/evil.so&pin-value="+cardPIN)
	testenv.Run(t, "cryptsetup", "token", "import", "--token-replace", "--token-id", "1", "--json-file", writeTemp(t, token), image)
	disk := c.AddDisk(t, Disk{Path: image})
	c.Shell(t, "cp /usr/lib/fault.so /usr/lib/evil.so")
	agent := c.agent(t, "PIN:+"+cardPIN)
	r := c.Start(t, Command{Args: []string{"strace", "-f", "-o", "/run/trace", "-e", "trace=file", c.path, "attach", "vol", disk, "-", "pkcs11-uri=auto"},
		Env: faulty("crash-initialize")}).Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if asked := agent.Wait(t).Stdout; r.Status != 0 || strings.Count(asked, "Message=PIN of luksmith") != 1 {
		t.Errorf("exit status %d\n%s\nasked: %s", r.Status, r.Stderr, asked)
	}
	trace := c.Shell(t, "cat /run/trace").Stdout
	if !strings.Contains(trace, "libp11-kit.so.0") || !strings.Contains(trace, hsmModule) || strings.Contains(trace, "evil") {
		t.Errorf("trace of %d bytes shows evil.so: %t", len(trace), strings.Contains(trace, "evil"))
	}
}

// withoutTokens has the encrypted key in a file, and the URI in crypttab. What we
// open so, systemd opens, too.
func (c *cards) withoutTokens(t *testing.T) {
	image := copyOf(t, makeSample(t).image)
	for _, name := range []string{"systemd257-rsa", "systemd257-ec"} {
		var made struct {
			Passphrase string `json:"derived_passphrase"`
			Token      struct {
				Key string `json:"pkcs11-key"`
			}
		}
		if err := json.Unmarshal([]byte(readFile(t, "../tokens/pkcs11/testdata/"+name+".json")), &made); err != nil {
			t.Fatal(err)
		}
		key, err := base64.StdEncoding.DecodeString(made.Token.Key)
		if err != nil {
			t.Fatal(err)
		}
		testenv.Run(t, "cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", writeTemp(t, passphrase), image, writeTemp(t, made.Passphrase))
		c.WriteFile(t, "/run/"+name, key, 0o600)
	}
	disk := c.AddDisk(t, Disk{Path: image})
	env := []string{"PIN=" + cardPIN}
	for name, uri := range map[string]string{"systemd257-rsa": "pkcs11:token=luksmith;id=%01", "systemd257-ec": "pkcs11:token=luksmith;object=ec;type=private"} {
		r := c.Start(t, Command{Args: []string{c.path, "attach", "vol", disk, "/run/" + name, "headless,pkcs11-uri=" + uri}, Env: env}).Wait(t)
		if r.Status != 0 {
			t.Errorf("%s: exit status %d\n%s", name, r.Status, r.Stderr)
			continue
		}
		if got := c.report(t, "vol"); got.Opened.By != "pkcs11 token" || got.Opened.Token != nil {
			t.Errorf("%s: %+v", name, got)
		}
		c.detach(t, "vol")
	}
	r := c.Start(t, Command{Args: []string{"/lib/systemd/systemd-cryptsetup", "attach", "vol", disk, "/run/systemd257-rsa", "luks,pkcs11-uri=pkcs11:token=luksmith;id=%01"}, Env: env}).Wait(t)
	if r.Status != 0 {
		t.Fatalf("systemd-cryptsetup: exit status %d\n%s", r.Status, r.Stderr)
	}
	c.detach(t, "vol")
}

// tokenThatAppears is one of a module that looks for tokens at its start only, and
// makes no event of the kernel.
func (c *cards) tokenThatAppears(t *testing.T, disk string) {
	c.Shell(t, "mv /var/lib/softhsm/tokens /var/lib/softhsm/away; mkdir /var/lib/softhsm/tokens")
	p := c.onTerminal(t, "attach", "vol", disk, "-", "pkcs11-uri=auto,token-timeout=120")
	p.Expect(t, `waiting for a security device \(pkcs11\) for up to 2m`, slow)
	p.Expect(t, "Please enter passphrase", slow)
	c.Shell(t, "rmdir /var/lib/softhsm/tokens; mv /var/lib/softhsm/away /var/lib/softhsm/tokens")
	p.Expect(t, "PIN of luksmith", slow)
	p.Write(t, cardPIN+"\n")
	r := p.Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || c.report(t, "vol").Opened.By != "pkcs11 token" {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
}

// cardIntoReader enrols a PIV card and plays with it while attach runs: the reader
// stays, so the kernel has no event to offer.
func (c *cards) cardIntoReader(t *testing.T) {
	daemon := c.Start(t, Command{Args: []string{"pcscd", "--foreground"}})
	t.Cleanup(func() { daemon.Signal(t, syscall.SIGTERM); daemon.Wait(t) })
	card := c.Start(t, Command{Args: []string{c.card, "--pin=" + pivPIN}, KeepOpen: true})
	t.Cleanup(func() { card.Signal(t, syscall.SIGKILL); card.Wait(t) })
	moves := 0
	move := func(verb, answer string) {
		t.Helper()
		moves++
		card.Write(t, verb+"\n")
		card.Expect(t, `(?s)(`+answer+`.*){`+string(rune('0'+(moves+1)/2))+`}`, slow)
		if verb == "remove" {
			time.Sleep(time.Second) // the reader and OpenSC hang if they are used before pcscd has noticed
		}
	}
	c.Shell(t, "i=0; while ! [ -e /run/pcscd/pcscd.comm ]; do i=$((i+1)); [ $i -lt 200 ]; sleep 0.1; done")
	move("insert", "inserted")
	disk, _ := c.volume(t, "257")
	c.WriteFile(t, p11Modules+"opensc-pkcs11.module", []byte(readFile(t, p11Modules+"opensc-pkcs11.module")), 0o600)
	c.Shell(t, "i=0; while ! "+c.enroll+" --pkcs11-token-uri=list | grep piv_II; do i=$((i+1)); [ $i -lt 40 ]; sleep 0.1; done")
	r := c.Start(t, Command{Args: []string{c.enroll, "--pkcs11-token-uri=pkcs11:manufacturer=piv_II", "--compat=257", disk}, Env: []string{"PASSWORD=" + passphrase, "PIN=" + pivPIN}}).Wait(t)
	if r.Status != 0 {
		t.Fatalf("cryptenroll: exit status %d\n%s", r.Status, r.Stderr)
	}
	move("remove", "removed")

	p := c.onTerminal(t, "attach", "vol", disk, "-", "pkcs11-uri=auto,token-timeout=120")
	p.Expect(t, `waiting for a security device \(pkcs11\) for up to 2m`, slow)
	p.Expect(t, "Please enter passphrase", slow)
	move("insert", "inserted")
	p.Expect(t, "PIN of ", slow)
	move("remove", "removed")
	p.Write(t, pivPIN+"\n")
	p.Expect(t, `(?s)(waiting for a security device.*){2}`, slow)
	move("insert", "inserted")
	inserted := time.Now()
	p.Expect(t, `(?s)(PIN of .*waiting for a security device.*)PIN of `, slow)
	t.Logf("asked for the PIN %v after the card was put in", time.Since(inserted).Round(10*time.Millisecond))
	p.Write(t, pivPIN+"\n")
	r = p.Wait(t)
	t.Cleanup(func() { c.detach(t, "vol") })
	if r.Status != 0 || c.report(t, "vol").Opened.By != "pkcs11 token" || c.contents(t, "vol") != inside {
		t.Errorf("exit status %d\n%s", r.Status, r.Stdout)
	}
}
