package draw

import (
	"regexp"
	"strconv"
	"strings"
)

// Texts of the page.
const (
	title = "Recovery key"
	intro = "This key opens the encrypted volume named below when its other ways to unlock are lost: a forgotten passphrase, a " +
		"broken security key, a replaced mainboard. Keep this page in a safe place away from the computer. Whoever reads it can read the volume."
	spelling = "Only the letters %s occur, and dashes."

	bootTitle = "When the computer asks at start"
	bootText  = "Type the key at the question for the passphrase. luksmith takes it without dashes and in capitals as well; " +
		"other programs want it exactly as printed: small letters, in one line, with the seven dashes."

	rescueTitle = "From a rescue system"
	rescueText  = "Start any Linux with cryptsetup, such as the installation medium of a distribution, open a terminal as root, and run these " +
		"commands. The first one asks for a passphrase: type the key as printed."
	rescueMore = "If the device is not found, lsblk -f lists the volumes by UUID. If mount reports LVM2_member, run vgchange -ay and mount the logical volume."

	checkText = "To check the key without opening the volume:"

	footer = "Printed by luksmith. The QR code holds the key as printed above, nothing else."

	afterTitle = "After it was used or seen"
	afterText  = "Enrol a new key and wipe this one:"
)

// mapping is the mapping name in the commands.
const mapping = "recovered"

var (
	uuidForm = regexp.MustCompile(`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`)
	// safeWord is what a shell takes as one plain word, short enough for a line.
	safeWord = regexp.MustCompile(`^[A-Za-z0-9/._][A-Za-z0-9/._:=@+-]{0,63}$`)
)

// word returns a path as it can be typed into a shell, or what to put there
// instead of one that cannot.
func word(path, instead string) string {
	if safeWord.MatchString(path) {
		return path
	}
	return instead
}

// target is the volume in the commands. The UUID is the better name, since a rescue
// system may number its disks otherwise; but only a header on the device itself
// has it in /dev/disk.
func (p *page) target() string {
	if p.Header == "" && strings.HasPrefix(p.Device, "/dev/") && uuidForm.MatchString(p.UUID) {
		return "/dev/disk/by-uuid/" + strings.ToLower(p.UUID)
	}
	return word(p.Device, "DEVICE")
}

// header is the option for a detached header, as a list of no or one word.
func (p *page) header() []string {
	if p.Header == "" {
		return nil
	}
	return []string{"--header=" + word(p.Header, "HEADER")}
}

// A command is a list of words, divided where the line may be.
func (p *page) openCommand() []string {
	return append(append([]string{"cryptsetup open"}, p.header()...), p.target(), mapping)
}

func (p *page) mountCommand() []string { return []string{"mount", "/dev/mapper/" + mapping, "/mnt"} }

func (p *page) checkCommand() []string {
	return append(append([]string{"cryptsetup open --test-passphrase", "--key-slot " + strconv.Itoa(p.Keyslot)}, p.header()...), p.target())
}

func (p *page) replaceCommand() []string {
	return append(append([]string{"cryptenroll --recovery-key", "--wipe-slot=" + strconv.Itoa(p.Keyslot)}, p.header()...), p.target())
}
