package crypttab

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// setter stores one word in the options or says what is wrong with its value.
type setter = func(*Options, Word) error

func mode(m Mode) setter { return func(o *Options, _ Word) error { o.Mode = m; return nil } }

func fixed(f func(*Options)) setter { return func(o *Options, _ Word) error { f(o); return nil } }

func flag(field func(*Options) *bool) setter {
	return func(o *Options, _ Word) error { *field(o) = true; return nil }
}

func tcrypt(field func(*Options) *bool) setter {
	return func(o *Options, _ Word) error { o.Mode, *field(o) = ModeTcrypt, true; return nil }
}

func text(field func(*Options) *string) setter {
	return func(o *Options, w Word) error { *field(o) = w.Value; return nil }
}

// boolean takes the bare word as yes.
func boolean(field func(*Options) *bool) setter {
	return func(o *Options, w Word) (err error) {
		value := true
		if w.HasValue {
			value, err = ParseBool(w.Value)
		}
		if err == nil {
			*field(o) = value
		}
		return err
	}
}

func unsigned(field func(*Options) *uint32) setter {
	return func(o *Options, w Word) error {
		n, err := ParseUint(w.Value, 32)
		if err == nil {
			*field(o) = uint32(n)
		}
		return err
	}
}

func unsigned64(field func(*Options) *uint64) setter {
	return func(o *Options, w Word) error {
		n, err := ParseUint(w.Value, 64)
		if err == nil {
			*field(o) = n
		}
		return err
	}
}

// span reads a time span whose 0 means for ever (systemd parse_sec_fix_0).
func span(store func(*Options, time.Duration)) setter {
	return func(o *Options, w Word) error {
		d, err := ParseTimeSpan(w.Value)
		if err == nil && d == 0 {
			d = Forever
		}
		if err == nil {
			store(o, d)
		}
		return err
	}
}

func accepted(*Options, Word) error { return nil }

// ignored is for options of others that have no effect here.
func ignored(of Origin) setter {
	return func(*Options, Word) error { return &noteError{"ignored, an option of " + string(of)} }
}

func neverRun(*Options, Word) error {
	return &noteError{"ignored: a program named in crypttab is never run"}
}

func checkBool(_ *Options, w Word) error {
	_, err := ParseBool(w.Value)
	return err
}

func absolute(what, path string) error {
	if strings.HasPrefix(path, "/") {
		return nil
	}
	return fmt.Errorf("%w: %s %q is not absolute", ErrBadValue, what, path)
}

func checkAbsolute(_ *Options, w Word) error { return absolute("the path", w.Value) }

func setHeader(o *Options, w Word) error {
	if o.Mode != ModeTcrypt {
		o.Mode = ModeLUKS
	}
	if o.Header != "" {
		return fmt.Errorf("%w: given twice", ErrBadValue)
	}
	if err := absolute("the path", w.Value); err != nil {
		return err
	}
	o.Header = w.Value
	return nil
}

// setKeySlot is stricter than systemd, which takes any number and fails later, or
// with -1 uses every slot.
func setKeySlot(o *Options, w Word) error {
	o.Mode = ModeLUKS
	n, err := ParseInt(w.Value)
	if err != nil {
		return err
	}
	if n < 0 || n > 31 {
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

func setDeviceTimeout(o *Options, w Word) error {
	return span(func(o *Options, d time.Duration) { o.DeviceTimeout = &d })(o, w)
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
		return &noteError{"outside of 512 to 4096"}
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

// setPKCS11 checks the characters only, as systemd does: RFC 7512 is for the token
// type to parse.
func setPKCS11(o *Options, w Word) error {
	rest, ok := strings.CutPrefix(w.Value, "pkcs11:")
	bad := strings.ContainsFunc(rest, func(r rune) bool {
		return !(r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune(".~/-_?;&%=", r))
	})
	if w.Value != "auto" && (!ok || rest == "" || bad) {
		return fmt.Errorf("%w: want auto or a PKCS#11 URI", ErrBadValue) // without the value: a PIN may be in it
	}
	o.PKCS11 = true
	return nil
}

func setFIDO2(o *Options, _ Word) error { o.FIDO2 = true; return nil }

func setFIDO2CID(o *Options, w Word) error {
	if w.Value != "auto" {
		compact := strings.Join(strings.FieldsFunc(w.Value, func(r rune) bool { return strings.ContainsRune(spaces, r) }), "")
		if _, err := base64.StdEncoding.Strict().DecodeString(compact); err != nil {
			return fmt.Errorf("%w %q: want auto or base64", ErrBadValue, w.Value)
		}
	}
	o.FIDO2 = true
	return nil
}

func setTPM2(o *Options, _ Word) error { o.TPM2 = true; return nil }

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
	for name := range strings.SplitSeq(w.Value, ":") {
		bank := strings.ToLower(strings.Replace(name, "-", "", 1))
		if name == "" {
			continue
		}
		if !slices.Contains(measurable, bank) {
			return fmt.Errorf("%w: unknown bank %q, want one of %s", ErrBadValue, name, strings.Join(measurable, ", "))
		}
		o.MeasureBanks = append(o.MeasureBanks, bank)
	}
	return nil
}

func setMeasureNvPCR(o *Options, w Word) error {
	o.MeasureNvPCR = w.Value
	return &noteError{"ignored: additional PCRs in NV memory are not supported"}
}

// pcrNames are systemd 257's names for PCRs, by number (systemd src/shared/tpm2-util.c).
var pcrNames = [...]string{0: "platform-code", 1: "platform-config", 2: "external-code", 3: "external-config",
	4: "boot-loader-code", 5: "boot-loader-config", 6: "host-platform", 7: "secure-boot-policy", 9: "kernel-initrd",
	10: "ima", 11: "kernel-boot", 12: "kernel-config", 13: "sysexts", 14: "shim-policy", 15: "system-identity",
	16: "debug", 23: "application-support"}

// digestLength of the banks, in hexadecimal digits.
var digestLength = map[string]int{"sha1": 40, "sha256": 64, "sha384": 96, "sha512": 128}

// checkPCRs checks a list such as "7+11:sha256+secure-boot-policy" as systemd 257
// does, so that a bad one stops here and not in front of the chip.
func checkPCRs(_ *Options, w Word) error {
	first := ""
	for item := range strings.SplitSeq(w.Value, "+") {
		if item == "" {
			continue
		}
		bank, err := checkPCR(item)
		if err != nil {
			return fmt.Errorf("%w %q: %w", ErrBadValue, item, err)
		}
		if bank != "" && first != "" && bank != first {
			return fmt.Errorf("%w %q: more than one bank", ErrBadValue, w.Value)
		}
		first = max(first, bank)
	}
	return nil
}

// checkPCR checks PCR[:BANK[=DIGEST]] and returns the bank.
func checkPCR(item string) (bank string, err error) {
	item, digest, hasDigest := strings.Cut(item, "=")
	pcr, bank, _ := strings.Cut(item, ":")
	bank = strings.ToLower(bank)
	if n, err := ParseUint(pcr, 32); err != nil && (pcr == "" || !slices.Contains(pcrNames[:], pcr)) || n > 23 {
		return "", errors.New("want a PCR number from 0 to 23, or its name")
	}
	if bank != "" && digestLength[bank] == 0 {
		return "", errors.New("unknown bank")
	}
	if !hasDigest {
		return bank, nil
	}
	if _, err := hex.DecodeString(digest); err != nil || len(digest) != digestLength[bank] {
		return "", errors.New("the digest does not fit the bank")
	}
	return bank, nil
}
