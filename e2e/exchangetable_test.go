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
	luks1           bool
	quick           bool // one of those that make test tries, too
}

func (x *exchange) String() string {
	name := x.stage + ", by " + x.by + ", " + x.then
	if x.luks1 {
		return name + ", LUKS1"
	}
	return name
}

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
				if list = append(list, x); stage != "key computed" && then != "other" {
					list = append(list, &exchange{stage: stage, by: by, then: then, luks1: true})
				}
			}
		}
	}
	return list
}

// exchangeTexts are what the file in each of the disks holds.
var exchangeTexts = map[string]string{"returns": inside, "twin": "the contents of the twin\n", "other": "the contents of the other one\n"}

// uuid is that of the disk that is asked for.
func (x *exchange) uuid(t *testing.T) string {
	if x.luks1 {
		return uuidNumber(9)
	}
	return makeSample(t).uuid
}

// image is a copy of that disk, or of one that comes in its place.
func (x *exchange) image(t *testing.T, which string) string {
	t.Helper()
	name, uuid, geometry := which, x.uuid(t), []string{"--reduce-device-size", "16M"}
	switch {
	case x.luks1:
		name += "1"
	case which == "returns":
		return copyOf(t, makeSample(t).image)
	case which == "other":
		uuid, geometry = uuidNumber(7), []string{"--reduce-device-size", "8M", "--sector-size", "4096"}
	}
	return copyOf(t, artefact(t, name+".img", func(image string) error {
		dir := filepath.Dir(image)
		source, pass, key := filepath.Join(dir, name), filepath.Join(dir, name+".pass"), filepath.Join(dir, name+".key")
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
		for _, args := range [][]string{
			{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", source, image, "8M"},
			encryption(image, pass, geometry...),
			append([]string{"cryptsetup", "luksAddKey", "-q", "--key-file", pass, image, key}, cheap()...),
			{"cryptsetup", "luksUUID", "-q", "--uuid", uuid, image},
		} {
			if err := execute(nil, nil, args...); err != nil {
				return err
			}
		}
		if x.luks1 {
			return execute(nil, nil, "cryptsetup", "convert", "-q", "--type", "luks1", image)
		}
		return nil
	}))
}

// twinStick is the stick with the header of the twin.
func twinStick(t *testing.T) string {
	t.Helper()
	header := filepath.Join(t.TempDir(), "header")
	testenv.Run(t, "cryptsetup", "luksHeaderBackup", (&exchange{}).image(t, "twin"), "--header-backup-file", header)
	image := copyOf(t, makeStick(t))
	testenv.Run(t, "debugfs", "-w", "-R", "rm header", image)
	testenv.Run(t, "debugfs", "-w", "-R", "write "+header+" header", image)
	return image
}

// run ends at a mapping of what is plugged in then, with the key of its own header.
func (x *exchange) run(t *testing.T, u *unit, number int) {
	first := x.image(t, "returns")
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
	if got := u.PlugDisk(t, Disk{Path: x.image(t, x.then)}).Node(t); x.by != "UUID" && x.then == "other" && got != node {
		testenv.NotApplicable(t, "the other disk is "+got)
	}
	if x.by == "UUID" && x.then == "other" { // is none that was asked for
		if x.stage != "key file awaited" {
			p.Write(t, passphrase+"\n")
		}
		time.Sleep(2 * time.Second)
		u.nothingMapped(t)
		u.PlugDisk(t, Disk{Path: x.image(t, "returns")}).Node(t)
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
		return "UUID=" + x.uuid(t)
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
		format := map[bool]string{true: "LUKS1", false: "LUKS2"}[x.luks1]
		u.Shell(t, "dmsetup create vol --notable -u CRYPT-"+format+"-"+strings.ReplaceAll(x.uuid(t), "-", "")+"-vol")
	}
	p.Write(t, passphrase+"\n")
	time.Sleep(500 * time.Millisecond)
}
