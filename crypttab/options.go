package crypttab

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Mode is the format that the options ask for.
type Mode string

// The modes. Without a mode word systemd takes LUKS, and so does luksmith.
const (
	ModeAny     Mode = "" // no mode word: LUKS
	ModeLUKS    Mode = "LUKS"
	ModePlain   Mode = "PLAIN"
	ModeTcrypt  Mode = "TCRYPT"
	ModeBitlk   Mode = "BITLK"
	ModeFvault2 Mode = "FVAULT2" // Debian only
)

// Echo is what a person sees of the passphrase while typing.
type Echo string

// The values of password-echo=.
const (
	EchoMasked Echo = "masked" // one mark for each character, the default
	EchoYes    Echo = "yes"
	EchoNo     Echo = "no"
)

// Cache is the use of the kernel keyring for typed passphrases.
type Cache string

// The values of password-cache=.
const (
	CacheYes      Cache = "yes" // read and write, the default
	CacheNo       Cache = "no"
	CacheReadOnly Cache = "read-only"
)

// AnySlot is the KeySlot of volumes without key-slot=.
const AnySlot = -1

// Word is one option as written.
type Word struct {
	Name     string // up to the "="
	Value    string
	HasValue bool // "tmp=" has one, "tmp" has none
}

// String is the word for messages. What stands behind the question mark of a PKCS#11
// URI is left out, because it may be a PIN.
func (w Word) String() string {
	value := w.Value
	if path, _, found := strings.Cut(value, "?"); found && strings.Contains(path, "pkcs11:") {
		value = path + "?…"
	}
	if w.HasValue {
		return w.Name + "=" + value
	}
	return w.Name
}

func splitWord(text string) (w Word) {
	w.Name, w.Value, w.HasValue = strings.Cut(text, "=")
	return w
}

// Options is the fourth field, decoded. Make it with [ParseOptions]: the zero value
// is not the default. Durations are [Forever] where systemd says infinity.
type Options struct {
	// Words are the accepted options in the order given, for the token types,
	// which parse the values of their own options.
	Words []Word

	Mode           Mode
	Swap           bool   // plain volume with a new random key and swap space at each boot
	Temporary      string // file system of tmp=, "" without that option
	TcryptHidden   bool
	TcryptSystem   bool
	Veracrypt      bool
	VeracryptPIM   uint32
	TcryptKeyFiles []string
	Cipher, Hash   string
	KeySizeBits    uint32
	SectorSize     uint32 // bytes
	OffsetSectors  uint64 // of 512 bytes
	SkipSectors    uint64 // of 512 bytes

	Header        string // field text: see HeaderLocation
	KeySlot       int    // AnySlot, or 0..31
	KeyFileSize   uint32 // bytes; 0 is all
	KeyFileOffset uint64 // bytes
	KeyFileErase  bool
	// KeyFileTimeout bounds the wait for the device of the key file; nil when the
	// option is missing: then the file is required and waited for without limit.
	KeyFileTimeout *time.Duration

	Tries            uint32 // typed answers; 0 means no limit
	Timeout          time.Duration
	TokenTimeout     time.Duration
	DeviceTimeout    *time.Duration // x-systemd.device-timeout=; nil when missing
	TryEmptyPassword bool
	Headless         bool
	TokenOnly        bool // luksmith-token-only
	Verify           bool
	Echo             Echo
	PasswordCache    Cache
	ReadOnly         bool
	Discard          bool
	SameCPUCrypt     bool
	SubmitFromCPUs   bool
	NoReadWorkqueue  bool
	NoWriteWorkqueue bool
	LinkVolumeKey    string
	FixateVolumeKey  string // 64 lower-case hexadecimal digits, "" without the option
	MeasurePCR       int    // of tpm2-measure-pcr=; -1 is none
	MeasureBanks     []string
	MeasureNvPCR     string
	Latch            bool // luksmith-latch
	// Types are the short names of the token types that were asked for, in the order
	// given: "tpm2" after tpm2-device=.
	Types             []string
	NoAuto, NoFail    bool
	NetDev, InInitrd  bool
	passwordCacheSeen bool
	uncached          bool // the PINs of a type in Types are never cached
}

// Grammar is a table of options. [Table] has those that do not belong to token
// types; tokens.Set.Grammar adds the others.
type Grammar []Option

// ParseOptions splits and reads the fourth field, or the CONFIG argument of
// systemd-cryptsetup attach. The warnings are what systemd warns about and ignores;
// the error is what makes it refuse to attach, and comes with the warnings up to
// there. Both are a [SyntaxError] without file and line.
//
// Unlike systemd, an option that restricts ([Option.Restricts]) and cannot be
// understood is an error, because ignoring it would open more than was allowed.
func (g Grammar) ParseOptions(text string) (*Options, []*SyntaxError, error) {
	o := defaults()
	var warnings []*SyntaxError
	for more := text != ""; more; {
		var word string
		var err error
		word, text, more, err = nextWord(text)
		if err != nil {
			return nil, warnings, &SyntaxError{Field: "options", Err: err}
		}
		warning, err := g.apply(o, word)
		if warning != nil {
			warnings = append(warnings, &SyntaxError{Field: optionField(word), Err: warning})
		}
		if err != nil {
			return nil, warnings, &SyntaxError{Field: optionField(word), Err: err}
		}
	}
	late, err := o.crossCheck()
	if warnings = append(warnings, late...); err != nil {
		return nil, warnings, err
	}
	return o, warnings, nil
}

// optionField is the field of an error about one option.
func optionField(word string) string {
	if word == "" {
		return "options"
	}
	return "options: " + splitWord(word).String()
}

func defaults() *Options {
	return &Options{KeySlot: AnySlot, Tries: 3, Timeout: Forever, TokenTimeout: 30 * time.Second,
		SectorSize: 512, Echo: EchoMasked, PasswordCache: CacheYes, MeasurePCR: -1}
}

// nextWord cuts the first word off. A comma has a word on both sides, so that
// "luks," and "luks,,discard" hold empty words. The error is systemd's "Failed to parse
// options": a backslash may stand before a comma or another backslash only.
func nextWord(text string) (word, rest string, more bool, err error) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ',':
			return b.String(), text[i+1:], true, nil
		case '\\':
			i++
			if i == len(text) || text[i] != ',' && text[i] != '\\' {
				return "", "", false, fmt.Errorf(`%w: a backslash stands before something else than "," or "\"`, ErrBadValue)
			}
		}
		b.WriteByte(text[i])
	}
	return b.String(), "", false, nil
}

// apply stores one option. A warning means that it was ignored.
func (g Grammar) apply(o *Options, text string) (warning, err error) {
	// The old spelling of x-systemd.device-timeout=.
	text = strings.Replace(text, "comment=systemd.device-timeout=", "x-systemd.device-timeout=", 1)
	w := splitWord(text)
	row := g.find(w)
	if row == nil {
		return g.unknown(w)
	}
	problem := row.store(o, w)
	if unusable(problem) {
		problem = nil // the way to a key that needs it will say so
	}
	var note *noteError
	if problem != nil && !errors.As(problem, &note) {
		if row.Fatal || row.Restricts {
			return nil, problem
		}
		return problem, nil
	}
	o.Words = append(o.Words, w)
	o.selectType(row)
	return problem, nil
}

// selectType notes that an option asks for its token type.
func (o *Options) selectType(row *Option) {
	if !row.Selects {
		return
	}
	if !slices.Contains(o.Types, row.Type) {
		o.Types = append(o.Types, row.Type)
	}
	o.uncached = o.uncached || row.Uncached
}

// unusable reports whether an error of an option is an [UnusableError].
func unusable(err error) bool {
	var u *UnusableError
	return errors.As(err, &u)
}

// noteError is a warning about an option that is taken all the same.
type noteError struct {
	text string
	kind error // what lint asks for; nil for most
}

func (e *noteError) Error() string { return e.text }
func (e *noteError) Unwrap() error { return e.kind }

// errOfOthers is a note about an option that means something to a distribution's scripts.
var errOfOthers = errors.New("an option of others")

// find returns the row for a word whose form fits, or nil.
func (g Grammar) find(w Word) *Option {
	i := slices.IndexFunc(g, func(row Option) bool { return row.isNamed(w.Name) && row.takes(w) })
	if i < 0 {
		return nil
	}
	return &g[i]
}

// unknown judges a word that is in no row, or not in that form.
func (g Grammar) unknown(w Word) (warning, err error) {
	if strings.HasPrefix(w.Name, "x-systemd.") || w.Name == "comment" {
		return nil, nil // for other programs by convention; every boot would warn
	}
	reason := ErrUnknownOption
	if w.Name == "" && !w.HasValue {
		return &noteError{"two commas in a row, or one at the end", ErrUnknownOption}, nil
	}
	if s := g.Suggest(w); s != "" {
		reason = fmt.Errorf("%w, did you mean %q?", ErrUnknownOption, s)
		if row := g.find(splitWord(s)); row != nil && row.Selects {
			reason = &meantTokenError{reason}
		}
	}
	if slices.ContainsFunc(g, func(row Option) bool { return row.Restricts && row.isNamed(w.Name) }) {
		return nil, fmt.Errorf("%w; it restricts what may open the volume, so it cannot be ignored", reason)
	}
	return reason, nil
}

// errMeantToken is a warning because of which no token will be asked for.
var errMeantToken = errors.New("a token type was meant")

type meantTokenError struct{ error }

func (e *meantTokenError) Unwrap() []error { return []error{e.error, errMeantToken} }

// crossCheck judges combinations, as systemd does at the end.
func (o *Options) crossCheck() (warnings []*SyntaxError, err error) {
	if o.Mode != ModeAny && o.Mode != ModePlain {
		for name, value := range map[string]uint64{"offset=": o.OffsetSectors, "skip=": o.SkipSectors} {
			if value != 0 {
				warnings = append(warnings, &SyntaxError{Field: "options: " + name, Err: fmt.Errorf("ignored with type %s", o.Mode)})
			}
		}
		slices.SortStableFunc(warnings, func(a, b *SyntaxError) int { return strings.Compare(a.Field, b.Field) })
	}
	if !o.uncached {
		return warnings, nil
	}
	if o.passwordCacheSeen && o.PasswordCache != CacheNo {
		return warnings, &SyntaxError{Field: "options: password-cache=", Err: fmt.Errorf("%w: PINs of %s tokens are never cached", ErrBadValue, strings.Join(o.Types, " or "))}
	}
	o.PasswordCache = CacheNo
	return warnings, nil
}

// HeaderLocation is header= split into path and device; zero without the option.
func (o *Options) HeaderLocation() Location { return LiteralLocation(o.Header) }

// Value is that of the last word with a name, "" without one.
func (o *Options) Value(name string) (value string) {
	for _, w := range o.Words {
		if w.Name == name {
			value = w.Value
		}
	}
	return value
}
