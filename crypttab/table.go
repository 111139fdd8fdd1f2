package crypttab

import "time"

// Origin is whose option it is.
type Origin string

// The origins.
const (
	Systemd  Origin = "systemd"
	Debian   Origin = "Debian's scripts"
	Dracut   Origin = "dracut"
	Luksmith Origin = "luksmith"
)

// Use is what an option is about.
type Use string

// The uses.
const (
	ForLUKS      Use = "LUKS"
	ForPlain     Use = "plain"     // ignored for LUKS volumes
	ForTcrypt    Use = "tcrypt"    // likewise
	ForBitlk     Use = "bitlk"     // likewise
	ForFvault2   Use = "fvault2"   // likewise
	ForMapping   Use = "mapping"   // the device-mapper table
	ForTokens    Use = "tokens"    // TPM2, FIDO2, PKCS#11
	ForAsking    Use = "asking"    // prompts and what comes instead
	ForGenerator Use = "generator" // when and whether to attach, no matter to attach itself
	ForScripts   Use = "scripts"   // of a distribution; no effect here
)

// Option is one row of [Table].
type Option struct {
	Name  string
	Alias string // another spelling; "" for none
	Arg   string // placeholder of the value, "" for a word without one
	// Optional says that the word may stand without its value as well.
	Optional bool
	Origin   Origin
	Since    int // first systemd that has it; 1 is before 219, 0 never
	Use      Use
	// Fatal says that a bad value makes systemd refuse to attach; else it warns and
	// ignores the option.
	Fatal bool
	// Restricts says that the option forbids something, so that here it is never
	// ignored.
	Restricts bool
	Help      string // one line, no full stop

	// The rest is about options of token types: see [Option.Check].

	Type      string // short name of the type, "tpm2"; "" for every other option
	TokenType string // "type" member of its tokens
	Selects   bool   // the option asks for tokens of the type
	// NeedsKeyFile says that a value other than auto replaces the token in the
	// header, and that the key file has the rest.
	NeedsKeyFile bool
	Needs        string // option without which this one has no effect; may be empty
	Uncached     bool   // the type's PINs never go into the kernel keyring
	// Joins stands between the values of an option that takes several: a [Change] adds
	// to those that are there. 0 for the others, whose value it replaces.
	Joins byte
	// Check judges the value of an option that this package does not store itself:
	// its word is in [Options.Words]. A value that gives an [UnusableError] is taken.
	// A row of [Table] has no Check.
	Check func(value string) error

	set setter
}

// store judges the word and keeps what it says.
func (row *Option) store(o *Options, w Word) error {
	if row.set != nil {
		return row.set.set(o, w)
	}
	return row.Check(w.Value)
}

// isNamed reports whether the option goes by that name.
func (row *Option) isNamed(name string) bool {
	return row.Name == name || row.Alias != "" && row.Alias == name
}

// takes reports whether the word has a value where the option wants one.
func (row *Option) takes(w Word) bool {
	return w.HasValue == (row.Arg != "") || !w.HasValue && row.Optional
}

// Spelling is the option as a manual shows it: "tmp[=FS]".
func (row *Option) Spelling() string {
	switch {
	case row.Arg == "":
		return row.Name
	case row.Optional:
		return row.Name + "[=" + row.Arg + "]"
	}
	return row.Name + "=" + row.Arg
}

// Table has the options of systemd 248 to 262, of Debian and dracut, and those of
// luksmith, except what token types bring themselves (tokens.Set.Grammar). Manuals,
// lint, completion and the parser read it.
var Table = Grammar{
	{Name: "luks", Origin: Systemd, Since: 186, Use: ForLUKS, set: mode(ModeLUKS),
		Help: "the volume is LUKS1 or LUKS2; also the default"},
	{Name: "header", Arg: "PATH[:DEVICE]", Origin: Systemd, Since: 219, Use: ForLUKS, Fatal: true, Restricts: true, set: by(setHeader),
		Help: "detached header"},
	{Name: "key-slot", Alias: "keyslot", Arg: "SLOT", Origin: Systemd, Since: 209, Use: ForLUKS, Restricts: true, set: by(setKeySlot),
		Help: "use this keyslot only"},
	{Name: "keyfile-size", Arg: "BYTES", Origin: Systemd, Since: 188, Use: ForLUKS, set: unsigned(func(o *Options) *uint32 { return &o.KeyFileSize }),
		Help: "read that many bytes of the key file; 0 is all"},
	{Name: "keyfile-offset", Arg: "BYTES", Origin: Systemd, Since: 187, Use: ForLUKS, set: unsigned64(func(o *Options) *uint64 { return &o.KeyFileOffset }),
		Help: "skip that many bytes of the key file"},
	{Name: "keyfile-erase", Arg: "BOOL", Optional: true, Origin: Systemd, Since: 246, Use: ForLUKS, set: boolean(func(o *Options) *bool { return &o.KeyFileErase }),
		Help: "overwrite and remove the key file afterwards"},
	{Name: "keyfile-timeout", Arg: "TIME", Optional: true, Origin: Systemd, Since: 243, Use: ForLUKS, set: by(setKeyFileTimeout),
		Help: "wait that long for the key file's device, then go on without it"},
	{Name: "link-volume-key", Arg: "KEYRING::DESCRIPTION", Origin: Systemd, Since: 256, Use: ForLUKS, Fatal: true, set: by(setLinkVolumeKey),
		Help: "leave the volume key in a kernel keyring"},
	{Name: "fixate-volume-key", Arg: "HEX", Origin: Systemd, Since: 260, Use: ForLUKS, Restricts: true, set: by(setFixate),
		Help: "attach only if the volume key is the one with this identity"},

	{Name: "plain", Origin: Systemd, Since: 186, Use: ForPlain, set: mode(ModePlain), Help: "dm-crypt without header"},
	{Name: "swap", Origin: Systemd, Since: 186, Use: ForPlain, set: by(setSwap), Help: "new random key and swap space at each boot"},
	{Name: "tmp", Arg: "FS", Optional: true, Origin: Systemd, Since: 186, Use: ForPlain, set: by(setTmp), Help: "new random key and file system at each boot"},
	{Name: "cipher", Arg: "CIPHER", Origin: Systemd, Since: 186, Use: ForPlain, set: text(func(o *Options) *string { return &o.Cipher }),
		Help: "cipher of a plain volume"},
	{Name: "hash", Arg: "HASH", Origin: Systemd, Since: 186, Use: ForPlain, set: text(func(o *Options) *string { return &o.Hash }),
		Help: "hash for the passphrase of a plain volume"},
	{Name: "size", Arg: "BITS", Origin: Systemd, Since: 186, Use: ForPlain, set: by(setSize), Help: "key size of a plain volume"},
	{Name: "sector-size", Arg: "BYTES", Origin: Systemd, Since: 240, Use: ForPlain, set: by(setSectorSize), Help: "sector size of a plain volume"},
	{Name: "offset", Arg: "SECTORS", Origin: Systemd, Since: 220, Use: ForPlain, Fatal: true, set: unsigned64(func(o *Options) *uint64 { return &o.OffsetSectors }),
		Help: "start of a plain volume on its device"},
	{Name: "skip", Arg: "SECTORS", Origin: Systemd, Since: 220, Use: ForPlain, Fatal: true, set: unsigned64(func(o *Options) *uint64 { return &o.SkipSectors }),
		Help: "number of the first sector of a plain volume"},

	{Name: "tcrypt", Origin: Systemd, Since: 206, Use: ForTcrypt, set: mode(ModeTcrypt), Help: "TrueCrypt or VeraCrypt volume"},
	{Name: "tcrypt-hidden", Alias: "tcrypthidden", Origin: Systemd, Since: 206, Use: ForTcrypt, set: tcrypt(func(o *Options) *bool { return &o.TcryptHidden }),
		Help: "hidden TrueCrypt volume"},
	{Name: "tcrypt-system", Origin: Systemd, Since: 206, Use: ForTcrypt, set: tcrypt(func(o *Options) *bool { return &o.TcryptSystem }),
		Help: "TrueCrypt system volume"},
	{Name: "tcrypt-veracrypt", Alias: "veracrypt", Origin: Systemd, Since: 232, Use: ForTcrypt, set: tcrypt(func(o *Options) *bool { return &o.Veracrypt }),
		Help: "VeraCrypt volume"},
	{Name: "tcrypt-keyfile", Arg: "PATH", Origin: Systemd, Since: 206, Use: ForTcrypt, set: by(setTcryptKeyFile), Help: "further key file, repeatable"},
	{Name: "veracrypt-pim", Arg: "NUMBER", Origin: Systemd, Since: 254, Use: ForTcrypt, set: unsigned(func(o *Options) *uint32 { return &o.VeracryptPIM }),
		Help: "personal iterations multiplier"},
	{Name: "bitlk", Origin: Systemd, Since: 246, Use: ForBitlk, set: mode(ModeBitlk), Help: "BitLocker volume"},
	{Name: "fvault2", Origin: Debian, Use: ForFvault2, set: mode(ModeFvault2), Help: "FileVault2 volume"},

	{Name: "read-only", Alias: "readonly", Origin: Systemd, Since: 186, Use: ForMapping, Restricts: true, set: flag(func(o *Options) *bool { return &o.ReadOnly }),
		Help: "nothing can be written through the mapping"},
	{Name: "discard", Alias: "allow-discards", Origin: Systemd, Since: 207, Use: ForMapping, set: flag(func(o *Options) *bool { return &o.Discard }),
		Help: "pass discards (TRIM) on to the device"},
	{Name: "same-cpu-crypt", Origin: Systemd, Since: 242, Use: ForMapping, set: flag(func(o *Options) *bool { return &o.SameCPUCrypt }),
		Help: "encrypt on the CPU that issued the request"},
	{Name: "submit-from-crypt-cpus", Origin: Systemd, Since: 242, Use: ForMapping, set: flag(func(o *Options) *bool { return &o.SubmitFromCPUs }),
		Help: "do not move writes to a separate thread"},
	{Name: "no-read-workqueue", Origin: Systemd, Since: 248, Use: ForMapping, set: flag(func(o *Options) *bool { return &o.NoReadWorkqueue }),
		Help: "decrypt without a queue"},
	{Name: "no-write-workqueue", Origin: Systemd, Since: 248, Use: ForMapping, set: flag(func(o *Options) *bool { return &o.NoWriteWorkqueue }),
		Help: "encrypt without a queue"},

	{Name: "tries", Arg: "NUMBER", Origin: Systemd, Since: 186, Use: ForAsking, set: unsigned(func(o *Options) *uint32 { return &o.Tries }),
		Help: "typed answers before giving up; 0 means no limit"},
	{Name: "timeout", Arg: "TIME", Origin: Systemd, Since: 186, Use: ForAsking, set: span(func(o *Options, d time.Duration) { o.Timeout = d }),
		Help: "how long to wait for an answer; 0 means no limit"},
	{Name: "try-empty-password", Arg: "BOOL", Optional: true, Origin: Systemd, Since: 246, Use: ForAsking, set: boolean(func(o *Options) *bool { return &o.TryEmptyPassword }),
		Help: "try the empty passphrase before asking"},
	{Name: "headless", Arg: "BOOL", Optional: true, Origin: Systemd, Since: 249, Use: ForAsking, Restricts: true, set: boolean(func(o *Options) *bool { return &o.Headless }),
		Help: "never ask anybody"},
	{Name: "verify", Origin: Systemd, Since: 186, Use: ForAsking, set: flag(func(o *Options) *bool { return &o.Verify }), Help: "ask for the passphrase twice"},
	{Name: "password-echo", Arg: "yes|no|masked", Origin: Systemd, Since: 249, Use: ForAsking, set: by(setEcho), Help: "what to show while typing"},
	{Name: "password-cache", Arg: "yes|no|read-only", Origin: Systemd, Since: 257, Use: ForAsking, set: by(setCache), Help: "share passphrases through the kernel keyring"},
	{Name: "luksmith-token-only", Origin: Luksmith, Use: ForAsking, Restricts: true, set: flag(func(o *Options) *bool { return &o.TokenOnly }),
		Help: "open with a token or not at all"},

	{Name: "token-timeout", Arg: "TIME", Origin: Systemd, Since: 250, Use: ForTokens, set: span(func(o *Options, d time.Duration) { o.TokenTimeout = d }),
		Help: "how long to wait for a security device; 0 means no limit"},
	{Name: "tpm2-measure-pcr", Arg: "PCR|BOOL", Origin: Systemd, Since: 253, Use: ForTokens, set: by(setMeasurePCR),
		Help: "measure the volume key before the mapping is made; yes is PCR 15"},
	{Name: "tpm2-measure-bank", Arg: "BANKS", Origin: Systemd, Since: 253, Use: ForTokens, Fatal: true, set: by(setMeasureBank), Help: "banks for that, separated by colons"},
	{Name: "tpm2-measure-keyslot-nvpcr", Arg: "NAME", Origin: Systemd, Since: 259, Use: ForTokens, set: by(setMeasureNvPCR),
		Help: "measure the keyslot into an additional PCR"},
	{Name: "luksmith-latch", Origin: Luksmith, Use: ForTokens, Restricts: true, set: flag(func(o *Options) *bool { return &o.Latch }),
		Help: "measure the volume key into PCR 15 once no volume needs that PCR any more"},

	{Name: "noauto", Origin: Systemd, Since: 186, Use: ForGenerator, set: fixed(func(o *Options) { o.NoAuto = true }), Help: "only attach on request"},
	{Name: "auto", Origin: Systemd, Since: 186, Use: ForGenerator, set: fixed(func(o *Options) { o.NoAuto = false }), Help: "attach at boot, the default"},
	{Name: "nofail", Origin: Systemd, Since: 186, Use: ForGenerator, set: fixed(func(o *Options) { o.NoFail = true }), Help: "booting goes on without the volume"},
	{Name: "fail", Origin: Systemd, Since: 186, Use: ForGenerator, set: fixed(func(o *Options) { o.NoFail = false }), Help: "the volume is required, the default"},
	{Name: "_netdev", Origin: Systemd, Since: 235, Use: ForGenerator, set: fixed(func(o *Options) { o.NetDev = true }), Help: "the device needs the network"},
	{Name: "x-initrd.attach", Origin: Systemd, Since: 245, Use: ForGenerator, set: fixed(func(o *Options) { o.InInitrd = true }), Help: "attach in the initrd"},
	{Name: "x-systemd.device-timeout", Arg: "TIME", Origin: Systemd, Since: 216, Use: ForGenerator, set: span(func(o *Options, d time.Duration) { o.DeviceTimeout = &d }),
		Help: "how long to wait for the device to appear"},

	{Name: "keyscript", Arg: "PROGRAM", Origin: Debian, Use: ForScripts, set: by(neverRun), Help: "program that prints the key; never run"},
	{Name: "check", Arg: "PROGRAM", Optional: true, Origin: Debian, Use: ForScripts, set: ignored(Debian), Help: "check of the contents"},
	{Name: "checkargs", Arg: "ARGS", Origin: Debian, Use: ForScripts, set: ignored(Debian), Help: "arguments for it"},
	{Name: "initramfs", Origin: Debian, Use: ForScripts, set: fixed(func(o *Options) { o.InInitrd = true }), Help: "include in the initramfs"},
	{Name: "noearly", Origin: Debian, Use: ForScripts, set: ignored(Debian), Help: "not in the early script"},
	{Name: "loud", Origin: Debian, Use: ForScripts, set: ignored(Debian), Help: "print warnings"},
	{Name: "quiet", Origin: Debian, Use: ForScripts, set: ignored(Debian), Help: "print no warnings"},
	{Name: "force", Origin: Dracut, Use: ForScripts, set: fixed(func(o *Options) { o.InInitrd = true }), Help: "include in the initramfs"},
}
