package crypttab

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
)

// setter stores one word in the options or says what is wrong with its value. All of
// them are values that the compiler makes, so that a start pays for no row of [Table].
type setter interface {
	set(o *Options, w Word) error
}

// by is what fits no other setter.
type by func(*Options, Word) error

func (f by) set(o *Options, w Word) error { return f(o, w) }

// mode is a word that says which kind of volume it is.
type mode Mode

func (m mode) set(o *Options, _ Word) error { o.Mode = Mode(m); return nil }

// fixed is a word without a value.
type fixed func(*Options)

func (f fixed) set(o *Options, _ Word) error { f(o); return nil }

type flag func(*Options) *bool

func (field flag) set(o *Options, _ Word) error { *field(o) = true; return nil }

type tcrypt func(*Options) *bool

func (field tcrypt) set(o *Options, _ Word) error {
	o.Mode, *field(o) = ModeTcrypt, true
	return nil
}

type text func(*Options) *string

func (field text) set(o *Options, w Word) error { *field(o) = w.Value; return nil }

// boolean takes the bare word as yes.
type boolean func(*Options) *bool

func (field boolean) set(o *Options, w Word) (err error) {
	value := true
	if w.HasValue {
		value, err = ParseBool(w.Value)
	}
	if err == nil {
		*field(o) = value
	}
	return err
}

type unsigned func(*Options) *uint32

func (field unsigned) set(o *Options, w Word) error {
	n, err := ParseUint(w.Value, 32)
	if err == nil {
		*field(o) = uint32(n)
	}
	return err
}

type unsigned64 func(*Options) *uint64

func (field unsigned64) set(o *Options, w Word) error {
	n, err := ParseUint(w.Value, 64)
	if err == nil {
		*field(o) = n
	}
	return err
}

// span reads a time span whose 0 means forever (systemd parse_sec_fix_0).
type span func(*Options, time.Duration)

func (store span) set(o *Options, w Word) error {
	d, err := ParseTimeSpan(w.Value)
	if err == nil && d == 0 {
		d = Forever
	}
	if err == nil {
		store(o, d)
	}
	return err
}

// ignored is for options of others that have no effect here.
type ignored Origin

func (of ignored) set(*Options, Word) error {
	return &noteError{"ignored, an option of " + string(of), errOfOthers}
}

func neverRun(*Options, Word) error {
	return &noteError{"a program named in crypttab is never run, so a passphrase will be asked for", nil}
}

func absolute(what, path string) error {
	if strings.HasPrefix(path, "/") {
		return nil
	}
	return fmt.Errorf("%w: %s %q is not absolute", ErrBadValue, what, path)
}

func setHeader(o *Options, w Word) error {
	if o.Mode != ModeTcrypt {
		o.Mode = ModeLUKS
	}
	if o.Header != "" {
		return fmt.Errorf("%w: given twice", ErrBadValue)
	}
	if ref := LiteralDeviceRef(w.Value); ref.Tag != TagPath && ref.Value != "" {
		return fmt.Errorf("%w: a header is named by its path; write header=%s", ErrBadValue, ref.UdevLinks()[0])
	}
	if err := absolute("the path", w.Value); err != nil {
		return err
	}
	o.Header = w.Value
	return nil
}

// setKeySlot is stricter than systemd, which takes any number and fails later. -1 is
// every slot.
func setKeySlot(o *Options, w Word) error {
	o.Mode = ModeLUKS
	n, err := ParseInt(w.Value)
	if err != nil {
		return err
	}
	if n < AnySlot || n > 31 {
		return fmt.Errorf("%w: %d, keyslots have the numbers 0 to 31", ErrRange, n)
	}
	o.KeySlot = int(n)
	return nil
}

func setKeyFileTimeout(o *Options, w Word) error {
	d := Forever
	if w.HasValue {
		parsed, err := ParseTimeSpan(w.Value)
		if err != nil {
			return err
		}
		if parsed != 0 {
			d = parsed
		}
	}
	o.KeyFileTimeout = &d
	return nil
}

func setLinkVolumeKey(o *Options, w Word) error {
	if !strings.Contains(w.Value, "::") {
		return fmt.Errorf("%w %q: want KEYRING::DESCRIPTION", ErrBadValue, w.Value)
	}
	o.LinkVolumeKey = w.Value
	return nil
}

func setFixate(o *Options, w Word) error {
	digest, err := hex.DecodeString(w.Value)
	if err != nil || len(digest) != 32 {
		return fmt.Errorf("%w %q: want the 64 hexadecimal digits of an HMAC-SHA256", ErrBadValue, w.Value)
	}
	o.FixateVolumeKey = hex.EncodeToString(digest)
	return nil
}

func setSwap(o *Options, _ Word) error {
	o.Mode, o.Swap = ModePlain, true
	return nil
}

func setTmp(o *Options, w Word) error {
	o.Mode, o.Temporary = ModePlain, w.Value
	if w.Value == "" {
		o.Temporary = "ext4"
	}
	return nil
}

func setSize(o *Options, w Word) error {
	n, err := ParseUint(w.Value, 32)
	if err != nil {
		return err
	}
	if n%8 != 0 {
		return fmt.Errorf("%w %d: want a multiple of 8 bits", ErrBadValue, n)
	}
	o.KeySizeBits = uint32(n)
	return nil
}

func setSectorSize(o *Options, w Word) error {
	n, err := ParseUint(w.Value, 32)
	if err != nil {
		return err
	}
	if n%2 != 0 {
		return fmt.Errorf("%w %d: want a multiple of 2", ErrBadValue, n)
	}
	o.SectorSize = uint32(n)
	if n < 512 || n > 4096 {
		return &noteError{"outside of 512 to 4096", nil}
	}
	return nil
}

func setTcryptKeyFile(o *Options, w Word) error {
	o.Mode = ModeTcrypt
	err := absolute("the key file", w.Value)
	if err == nil {
		o.TcryptKeyFiles = append(o.TcryptKeyFiles, w.Value)
	}
	return err
}

func setEcho(o *Options, w Word) error {
	if w.Value == string(EchoMasked) {
		o.Echo = EchoMasked
		return nil
	}
	yes, err := ParseBool(w.Value)
	switch {
	case err != nil:
		return fmt.Errorf("%w %q: want yes, no or masked", ErrBadValue, w.Value)
	case yes:
		o.Echo = EchoYes
	default:
		o.Echo = EchoNo
	}
	return nil
}

func setCache(o *Options, w Word) error {
	cache := CacheReadOnly
	if w.Value != string(CacheReadOnly) {
		yes, err := ParseBool(w.Value)
		if err != nil {
			return fmt.Errorf("%w %q: want yes, no or read-only", ErrBadValue, w.Value)
		}
		if cache = CacheNo; yes {
			cache = CacheYes
		}
	}
	o.PasswordCache, o.passwordCacheSeen = cache, true
	return nil
}

// systemIdentityPCR is systemd's TPM2_PCR_SYSTEM_IDENTITY.
const systemIdentityPCR = 15

func setMeasurePCR(o *Options, w Word) error {
	n, err := ParseUint(w.Value, 32)
	if err == nil {
		if n > 23 {
			return fmt.Errorf("%w: PCR %d, want 0 to 23", ErrRange, n)
		}
		o.MeasurePCR = int(n)
		return nil
	}
	yes, err := ParseBool(w.Value)
	switch {
	case err != nil:
		return fmt.Errorf("%w %q: want a PCR, yes or no", ErrBadValue, w.Value)
	case yes:
		o.MeasurePCR = systemIdentityPCR
	default:
		o.MeasurePCR = -1
	}
	return nil
}

// measurable are the banks that can be extended here. systemd 257 takes whatever
// digest its OpenSSL knows, 262 ignores the option.
var measurable = []string{"sha1", "sha256", "sha384", "sha512"}

func setMeasureBank(o *Options, w Word) error {
	var list []string
	for name := range strings.SplitSeq(w.Value, ":") {
		bank := strings.ToLower(strings.Replace(name, "-", "", 1))
		if name == "" {
			continue
		}
		if !slices.Contains(measurable, bank) {
			return fmt.Errorf("%w: unknown bank %q, want one of %s", ErrBadValue, name, strings.Join(measurable, ", "))
		}
		if !slices.Contains(list, bank) {
			list = append(list, bank)
		}
	}
	o.MeasureBanks = list
	return nil
}

func setMeasureNvPCR(o *Options, w Word) error {
	o.MeasureNvPCR = w.Value
	return &noteError{"ignored: additional PCRs in NV memory are not supported", nil}
}
