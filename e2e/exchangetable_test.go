package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
)

// exchange pulls the disk out at one stage of an attach, and plugs something in.
type exchange struct {
	stage, by, then string
	quick           bool // one of those that make test tries, too
}

func (x *exchange) String() string { return x.stage + ", by " + x.by + ", " + x.then }

// exchangeTable is every stage with every way to name the disk and everything that may
// come in its place: the disk itself; one with the same UUID, geometry and passphrase,
// but another volume key; one that has nothing but the passphrase in common.
func exchangeTable() (list []*exchange) {
	quick := map[string]bool{
		"key file awaited, by UUID, returns": true, "question, by path, other": true, "question, by UUID, other": true,
		"question, by path, twin": true, "key computed, by path, returns": true, "key there, by UUID, twin": true,
	}
	for _, stage := range []string{"key file awaited", "question", "key computed", "key there"} {
		for _, by := range []string{"path", "UUID", "link"} {
			for _, then := range []string{"returns", "twin", "other"} {
				x := &exchange{stage: stage, by: by, then: then}
				x.quick = quick[x.String()]
				list = append(list, x)
			}
		}
	}
	return list
}

// exchangeTexts are what the file in each of the disks holds.
var exchangeTexts = map[string]string{"returns": inside, "twin": "the contents of the twin\n", "other": "the contents of the other one\n"}

// exchangeImage is a copy of a disk that comes in the place of the sample, or of that.
func exchangeImage(t *testing.T, which string) string {
	t.Helper()
	s := makeSample(t)
	uuid, geometry := s.uuid, []string{"--reduce-device-size", "16M"}
	switch which {
	case "returns":
		return copyOf(t, s.image)
	case "other":
		uuid, geometry = uuidNumber(7), []string{"--reduce-device-size", "8M", "--sector-size", "4096"}
	}
	return copyOf(t, artefact(t, which+".img", func(image string) error {
		dir := filepath.Dir(image)
		source, pass, key := filepath.Join(dir, which), filepath.Join(dir, which+".pass"), filepath.Join(dir, which+".key")
		if err := os.Mkdir(source, 0o700); err != nil {
			return err
		}
		for path, content := range map[string]string{pass: passphrase, key: keyFile, image: "", filepath.Join(source, "file"): exchangeTexts[which]} {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				return err
			}
		}
		if err := os.Truncate(image, 24<<20); err != nil {
			return err
		}
		encrypt := append([]string{"cryptsetup", "reencrypt", "-q", "--encrypt", "--type", "luks2", "--key-file", pass, image}, cheap()...)
		for _, args := range [][]string{
			{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", source, image, "8M"},
			append(encrypt, geometry...),
			append([]string{"cryptsetup", "luksAddKey", "-q", "--key-file", pass, image, key}, cheap()...),
			{"cryptsetup", "luksUUID", "-q", "--uuid", uuid, image},
		} {
			if err := execute(nil, nil, args...); err != nil {
				return err
			}
		}
		return nil
	}))
}

// twinStick is the stick with the header of the twin.
func twinStick(t *testing.T) string {
	t.Helper()
	header := filepath.Join(t.TempDir(), "header")
	testenv.Run(t, "cryptsetup", "luksHeaderBackup", exchangeImage(t, "twin"), "--header-backup-file", header)
	image := copyOf(t, makeStick(t))
	testenv.Run(t, "debugfs", "-w", "-R", "rm header", image)
	testenv.Run(t, "debugfs", "-w", "-R", "write "+header+" header", image)
	return image
}

// run ends at a mapping of what is plugged in then, with the key of its own header.
func (x *exchange) run(t *testing.T, u *unit, number int) {
	s := makeSample(t)
	first := copyOf(t, s.image)
	if x.stage == "key computed" {
		testenv.Run(t, "cryptsetup", "luksConvertKey", "-q", "--key-slot", "0", "--key-file", writeTemp(t, passphrase), "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "4000000", first)
	}
	disk := u.PlugDisk(t, Disk{Path: first})
	node := disk.Node(t)
	p := u.onTerminal(t, append([]string{"attach", "vol", x.source(t, u, node)}, x.options()...)...)
	x.reach(t, u, p)
	disk.Remove(t)
	p.Expect(t, again, slow)
	if x.stage == "key there" {
		u.Shell(t, "dmsetup remove vol || true") // unless attach has taken it away by now
	}
	u.nothingMapped(t)
	text := exchangeTexts[x.then]
	if got := u.PlugDisk(t, Disk{Path: exchangeImage(t, x.then)}).Node(t); x.by != "UUID" && x.then == "other" && got != node {
		testenv.NotApplicable(t, "the other disk is "+got)
	}
	if x.by == "UUID" && x.then == "other" { // is none that was asked for
		if x.stage != "key file awaited" {
			p.Write(t, passphrase+"\n")
		}
		time.Sleep(2 * time.Second)
		u.nothingMapped(t)
		u.PlugDisk(t, Disk{Path: exchangeImage(t, "returns")}).Node(t)
		text = inside
	}
	if x.stage == "key file awaited" {
		u.PlugUSBStick(t, Disk{Path: copyOf(t, makeStick(t))})
	} else {
		p.Expect(t, "(?s)"+again+".*"+question, slow)
		p.Write(t, passphrase+"\n")
	}
	u.opened(t, p, text)
}

// source names the disk: by its node, its UUID, or a link that leads to the node.
func (x *exchange) source(t *testing.T, u *unit, node string) string {
	t.Helper()
	switch x.by {
	case "UUID":
		return "UUID=" + makeSample(t).uuid
	case "link":
		u.Shell(t, "mkdir -p /dev/test; ln -sfn "+node+" /dev/test/disk")
		return "/dev/test/disk"
	}
	return node
}

func (x *exchange) options() []string {
	switch x.stage {
	case "key file awaited":
		return []string{"/keys/vol:LABEL=stick", "keyfile-timeout=120,headless"}
	case "key computed":
		return []string{"-", "key-slot=0,password-cache=no"}
	}
	return []string{"-", "password-cache=no"}
}

// reach brings the attach to the stage. A mapping that somebody seems to be making is
// waited for when the key is there: up to five seconds.
func (x *exchange) reach(t *testing.T, u *unit, p *Process) {
	t.Helper()
	if x.stage == "key file awaited" {
		p.Expect(t, "LABEL=stick", slow)
		return
	}
	p.Expect(t, question, slow)
	switch x.stage {
	case "question":
		p.Write(t, "half a passph")
		return
	case "key there":
		u.Shell(t, "dmsetup create vol --notable -u CRYPT-LUKS2-"+strings.ReplaceAll(makeSample(t).uuid, "-", "")+"-vol")
	}
	p.Write(t, passphrase+"\n")
	time.Sleep(500 * time.Millisecond)
}
