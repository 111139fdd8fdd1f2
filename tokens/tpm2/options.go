package tpm2

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/google/go-tpm/tpm2"

	"luksmith/crypttab"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// Options are all options of the type.
func (h *Handler) Options() []tokens.Option {
	return append(append(h.enrollOptions(), h.policyOptions()...), h.unlockOptions()...)
}

func (h *Handler) enrollOptions() []tokens.Option {
	return []tokens.Option{
		{Name: "tpm2-device", Arg: "DEVICE", Help: "enrol the TPM2: auto, list, a path, swtpm:host=HOST,port=PORT or swtpm:path=SOCKET", Place: tokens.Enrolling,
			Action: tokens.SelectEnroll, List: true, Since: 248, Values: []string{"auto", "list"}, Set: setDevice(&h.Device)},
		{Name: "tpm2-device-key", Arg: "FILE", Help: "enrol for the TPM2 with this storage key, without having it here", Place: tokens.Enrolling,
			Action: tokens.SelectEnroll, Since: 255, Set: tokens.SetText(&h.DeviceKey)},
		{Name: "tpm2-seal-key-handle", Arg: "HANDLE", Help: "seal under the key at this handle instead of the storage root key", Place: tokens.Enrolling,
			Since: 255, Set: setHandle(&h.ParentHandle)},
		{Name: "tpm2-pcrs", Arg: "PCRS", Help: "bind to these PCRs: 7+11, names, 7:sha256=HEX; may be given several times", Place: tokens.Enrolling,
			Since: 248, Set: setPCRs(&h.PCRs)},
		{Name: "tpm2-pcrs-as-they-are", Help: "bind to present values of PCR 11, 12, 13 and 15 too, which the next boot may not have", Place: tokens.Enrolling,
			Set: tokens.SetSwitch(&h.PCRsAsTheyAre)},
		{Name: "tpm2-latch", Help: "bind to PCR 15 = 0: opens only until a volume key was measured in this boot", Place: tokens.Enrolling,
			Set: tokens.SetSwitch(&h.Latch)},
		{Name: "tpm2-with-pin", Arg: "MODE", Help: "ask for a PIN as well: yes, no, direct or argon2id", Place: tokens.Enrolling, Since: 251,
			Values: []string{"yes", "no", "direct", "argon2id"}, Set: setPINMode(&h.WithPIN)},
		{Name: "tpm2-argon2id-memory", Arg: "BYTES", Help: "memory for stretching the PIN (default 64M)", Place: tokens.Enrolling, Since: 262,
			Set: setSize(&h.Argon2id.Memory)},
		{Name: "tpm2-argon2id-iterations", Arg: "NUMBER", Help: "passes over that memory (default 8)", Place: tokens.Enrolling, Since: 262,
			Set: setNumber(&h.Argon2id.Iterations)},
		{Name: "tpm2-argon2id-parallelism", Arg: "NUMBER", Help: "lanes that are computed at once (default 4, or one for each processor)", Place: tokens.Enrolling, Since: 262,
			Set: setNumber(&h.Argon2id.Lanes)},
		{Name: "tpm2-argon2id-iter-time", Arg: "TIME", Help: "choose the cost so that one PIN takes systemd this long here", Place: tokens.Enrolling, Since: 262,
			Set: setDuration(&h.Argon2idTime)},
	}
}

func (h *Handler) policyOptions() []tokens.Option {
	return []tokens.Option{
		{Name: "tpm2-public-key", Arg: "FILE", Help: "accept PCR values that are signed with this key; empty: none", Place: tokens.Enrolling, Since: 252,
			Set: setPath(&h.PublicKey)},
		{Name: "tpm2-public-key-pcrs", Arg: "PCRS", Help: "the PCRs whose values are signed (default 11)", Place: tokens.Enrolling, Since: 252,
			Set: h.setPublicKeyPCRs},
		{Name: "tpm2-public-key-policyref", Arg: "TEXT", Help: "accept signatures with this policy reference only", Place: tokens.Enrolling, Since: 262,
			Set: setRef(&h.PublicKeyRef)},
		{Name: "tpm2-signature", Arg: "FILE", Help: "file with the signatures", Place: tokens.Enrolling | tokens.Unlocking, Since: 252,
			Set: setPath(&h.Signature)},
		{Name: "tpm2-pcrlock", Arg: "FILE", Help: "policy of systemd-pcrlock; empty: none", Place: tokens.Enrolling | tokens.Unlocking, Since: 255,
			Set: setPath(&h.PCRLock)},
	}
}

func (h *Handler) unlockOptions() []tokens.Option {
	const device = "tpm2-device"
	return []tokens.Option{
		{Name: "unlock-tpm2-device", Arg: "DEVICE", Help: "unlock the volume with the TPM2", Place: tokens.Unlocking, Action: tokens.SelectUnlock, List: true,
			Since: 256, Values: []string{"auto", "list"}, Set: setDevice(&h.UnlockDevice)},
		{Name: device, Arg: "PATH|auto", Help: "unlock with a TPM2 chip", Place: tokens.Crypttab, Action: tokens.SelectUnlock,
			Since: 248, Values: []string{"auto"}, Set: tokens.Unusable(setDevice(&h.UnlockDevice))},
		{Name: "tpm2-pcrs", Arg: "PCRS", Help: "use only tokens bound to exactly these PCRs", Place: tokens.Crypttab, Since: 248, Fatal: true, Needs: device,
			Set: setMask(&h.OnlyPCRs)},
		{Name: "luksmith-tpm2-srk", Arg: "NAME", Help: "give no PIN to a TPM whose storage key has another name; several are joined by colons", Place: tokens.Crypttab, Needs: device,
			Joins: nameSeparator, Set: tokens.Unusable(setNames(&h.StorageKeys))},
		{Name: "tpm2-pin", Arg: "BOOL", Help: "a sealed object in the key file needs a PIN", Place: tokens.Crypttab, Since: 251, Needs: device,
			Set: tokens.SetBool(&h.KeyDataPIN)},
		{Name: "tpm2-signature", Arg: "PATH", Help: "file with the signatures of the PCR policy", Place: tokens.Crypttab, Since: 252, Fatal: true, Needs: device,
			Set: setAbsolute(&h.Signature)},
		{Name: "tpm2-pcrlock", Arg: "PATH", Help: "policy of systemd-pcrlock", Place: tokens.Crypttab, Since: 255, Fatal: true, Needs: device,
			Set: setAbsolute(&h.PCRLock)},
	}
}

func setDevice(dst *string) func(string) error {
	return func(value string) error {
		if value == "" {
			return errors.New("the value is empty")
		}
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%.60q has control characters", value)
		}
		if err := chip.CheckName(value); err != nil {
			return err
		}
		*dst = value
		return nil
	}
}

func setHandle(dst *tpm2.TPMHandle) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(value, "0x"), 16, 32)
		if err != nil {
			return fmt.Errorf("%.20q is not a handle: eight hexadecimal digits such as 0x81000001", value)
		}
		if k := n >> 24; n != 0 && k != chip.HandlePersistent && k != chip.HandleTransient {
			return fmt.Errorf("%#x is not a key: handles of keys begin with 81, or 80 while they are loaded", n)
		}
		*dst = tpm2.TPMHandle(n)
		return nil
	}
}

// setPCRs adds to what earlier options selected; an empty value clears it. A list
// that names no PCR, or one twice, is refused: it is not what was meant.
func setPCRs(dst **chip.Selection) func(string) error {
	return func(value string) error {
		s, err := chip.ParsePCRs(value)
		switch {
		case err != nil:
			return err
		case value == "":
			*dst = new(chip.Selection)
			return nil
		case s.Set == 0:
			return fmt.Errorf("%.20q names no PCR", value)
		case s.Twice != 0:
			return fmt.Errorf("PCR %s is there twice", s.Twice)
		}
		if *dst == nil {
			*dst = &s
			return nil
		}
		return (*dst).Merge(s)
	}
}

// setMask reads PCRs. Banks and values are read as well and select nothing, as with
// systemd.
func setMask(dst **chip.PCRSet) func(string) error {
	return func(value string) error {
		s, err := chip.ParsePCRs(value)
		if err == nil {
			*dst = &s.Set
		}
		return err
	}
}

// setPublicKeyPCRs reads PCRs and maybe their bank, without values.
func (h *Handler) setPublicKeyPCRs(value string) error {
	s, err := chip.ParsePCRs(value)
	if err == nil && len(s.Values) > 0 {
		err = fmt.Errorf("%.60q has values; signed values come from the signature file", value)
	}
	if err == nil {
		h.PublicKeyPCRs, h.PublicKeyBank = &s.Set, s.Bank
	}
	return err
}

func setPINMode(dst *PINMode) func(string) error {
	return func(value string) error {
		switch value {
		case "direct":
			*dst = PINDirect
			return nil
		case "argon2id":
			*dst = PINArgon2id
			return nil
		}
		yes, err := crypttab.ParseBool(value)
		if err != nil {
			return fmt.Errorf("%.20q is none of yes, no, direct and argon2id", value)
		}
		*dst = PINNo
		if yes {
			*dst = PINYes
		}
		return nil
	}
}

// setSize reads a number of bytes with a suffix K, M, G or T, which stand for
// powers of 1024.
func setSize(dst *uint64) func(string) error {
	return func(value string) error {
		digits := strings.TrimRight(value, "KMGT")
		n, err := strconv.ParseUint(digits, 10, 64)
		shift := map[string]int{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
		by, ok := shift[value[len(digits):]]
		if err != nil || !ok || n == 0 || n > math.MaxInt64>>by {
			return fmt.Errorf("%.20q is not a size such as 64M", value)
		}
		*dst = n << by
		return nil
	}
}

func setNumber(dst *uint64) func(string) error {
	return func(value string) error {
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil || n == 0 {
			return fmt.Errorf("%.20q is not a number from 1 on", value)
		}
		*dst = n
		return nil
	}
}

// setDuration reads a time span as systemd does: 2, 500ms, 1s 500ms.
func setDuration(dst *time.Duration) func(string) error {
	return func(value string) error {
		d, err := crypttab.ParseTimeSpan(value)
		if err != nil || d <= 0 || d > time.Minute {
			return fmt.Errorf("%.20q is not a time of up to a minute, such as 2 or 500ms", value)
		}
		*dst = d
		return nil
	}
}

func setPath(dst **string) func(string) error {
	return func(value string) error {
		if strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%.60q has control characters", value)
		}
		*dst = &value
		return nil
	}
}

// setAbsolute is setPath for crypttab, where systemd refuses what is not absolute.
func setAbsolute(dst **string) func(string) error {
	return func(value string) error {
		if !filepath.IsAbs(value) {
			return fmt.Errorf("%.60q is not an absolute path", value)
		}
		return tokens.Unusable(setPath(dst))(value)
	}
}

// setNames reads TPM names in hexadecimal.
func setNames(dst *[][]byte) func(string) error {
	return func(value string) error {
		var list [][]byte
		for text := range strings.SplitSeq(value, string(nameSeparator)) {
			name, err := hex.DecodeString(text)
			if err != nil || len(name) != 2+sha256.Size {
				return fmt.Errorf("%.80q is not the name of a key: %d hexadecimal digits", text, 2*(2+sha256.Size))
			}
			list = append(list, name)
		}
		*dst = list
		return nil
	}
}

func setRef(dst **string) func(string) error {
	return func(value string) error {
		var text string
		if err := tokens.SetText(&text)(value); err != nil {
			return err
		}
		if len(text) > maxRef {
			return fmt.Errorf("the text has %d bytes, at most %d are possible", len(text), maxRef)
		}
		*dst = &text
		return nil
	}
}

// maxRef bounds a policy reference: it goes into the token.
const maxRef = 256
