package main

import (
	"fmt"
	"strconv"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/cli"
)

// unsupported refuses what only cryptsetup can do, with the command that does it.
func unsupported(j *job) error {
	what, command := foreignCommand(j)
	if what == "" {
		return nil
	}
	return j.entry.Errorf("options", "%s is not supported here; run: %s", what, command)
}

// foreignCommand returns the cryptsetup command for a mode that is not supported, and
// what that is; "" if the volume is one of ours.
func foreignCommand(j *job) (what, command string) {
	switch o := j.options; o.Mode {
	case crypttab.ModePlain:
		return plainCommand(j)
	case crypttab.ModeTcrypt:
		return "tcrypt", tcryptCommand(j)
	case crypttab.ModeBitlk, crypttab.ModeFvault2:
		mode := strings.ToLower(string(o.Mode))
		return mode, j.openCommand("--type", mode)
	}
	if keyring := j.options.LinkVolumeKey; keyring != "" {
		return "link-volume-key=", j.openCommand("--link-vk-to-keyring", keyring)
	}
	return "", ""
}

// plainCommand spells the defaults out: those of systemd, which read this line
// before, are not those of cryptsetup.
func plainCommand(j *job) (what, command string) {
	o := j.options
	cipher, hash, bits := o.Cipher, o.Hash, o.KeySizeBits
	if cipher == "" {
		cipher = "aes-cbc-essiv:sha256"
	}
	if bits == 0 {
		bits = 256
	}
	if hash == "" {
		hash = "ripemd160"
	}
	flags := []string{"--type", "plain", "--cipher", cipher, "--key-size", fmt.Sprint(bits)}
	plain := *j
	if plain.entry.Key.Path == "" && (o.Swap || o.Temporary != "") {
		plain.entry.Key = crypttab.Location{Path: "/dev/urandom"}
	}
	if plain.entry.Key.Path == "" { // else systemd takes the file as it is, like cryptsetup
		flags = append(flags, "--hash", hash)
	}
	if o.SectorSize != 512 {
		flags = append(flags, "--sector-size", fmt.Sprint(o.SectorSize))
	}
	flags = append(flags, numeric("--offset", o.OffsetSectors)...)
	command = plain.openCommand(append(flags, numeric("--skip", o.SkipSectors)...)...)
	node := cli.ShellWords("/dev/mapper/" + j.entry.Name)
	switch {
	case o.Swap:
		return "swap", command + " && mkswap " + node
	case o.Temporary != "":
		return "tmp", command + " && mkfs -t " + cli.ShellWords(o.Temporary) + " " + node
	}
	return "plain", command
}

// tcryptCommand: the third field holds the passphrase of these volumes in its first
// line; key files are options.
func tcryptCommand(j *job) string {
	o := j.options
	flags := []string{"--type", "tcrypt"}
	for _, f := range []struct {
		on   bool
		name string
	}{{o.TcryptHidden, "--tcrypt-hidden"}, {o.TcryptSystem, "--tcrypt-system"}, {o.Veracrypt, "--veracrypt"}} {
		if f.on {
			flags = append(flags, f.name)
		}
	}
	flags = append(flags, numeric("--veracrypt-pim", uint64(o.VeracryptPIM))...)
	for _, k := range o.TcryptKeyFiles {
		flags = append(flags, "--key-file", k)
	}
	typed := *j
	typed.entry.Key = crypttab.Location{}
	command := typed.openCommand(flags...)
	if j.entry.Key.Path == "" {
		return command
	}
	mount, path := j.keyPath()
	return mount + "head -n 1 " + cli.ShellWords(path) + " | " + command
}

// openCommand is `cryptsetup open` with further flags: what attaches the volume when
// this program cannot.
func (j *job) openCommand(flags ...string) string {
	o := j.options
	words := append([]string{"cryptsetup", "open"}, flags...)
	if o.Header != "" {
		words = append(words, "--header", j.header.Path)
	}
	mount := ""
	if j.entry.Key.Path != "" {
		var path string
		mount, path = j.keyPath()
		words = append(words, "--key-file", path)
		words = append(words, numeric("--keyfile-offset", o.KeyFileOffset)...)
		words = append(words, numeric("--keyfile-size", uint64(o.KeyFileSize))...)
	}
	if o.KeySlot != crypttab.AnySlot {
		words = append(words, "--key-slot", fmt.Sprint(o.KeySlot))
	}
	for _, f := range []struct {
		on   bool
		name string
	}{
		{o.ReadOnly, "--readonly"}, {o.Discard, "--allow-discards"}, {o.SameCPUCrypt, "--perf-same_cpu_crypt"}, {o.SubmitFromCPUs, "--perf-submit_from_crypt_cpus"},
		{o.NoReadWorkqueue, "--perf-no_read_workqueue"}, {o.NoWriteWorkqueue, "--perf-no_write_workqueue"},
	} {
		if f.on {
			words = append(words, f.name)
		}
	}
	return mount + cli.ShellWords(append(words, j.entry.Source.UdevLinks()[0], j.entry.Name)...)
}

// keyPath is the path of the key file, and the command that makes it one where the
// file lies on another device.
func (j *job) keyPath() (mount, path string) {
	key := j.entry.Key
	if key.Device == nil {
		return "", key.Path
	}
	return "mount -o ro " + cli.ShellWords(key.Device.UdevLinks()[0], "/mnt") + " && ", "/mnt" + key.Path
}

// numeric is an option with its value, nothing for 0.
func numeric(name string, n uint64) []string {
	if n == 0 {
		return nil
	}
	return []string{name, strconv.FormatUint(n, 10)}
}
