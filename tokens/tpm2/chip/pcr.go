package chip

import (
	"bytes"
	"crypto"
	_ "crypto/sha1" // banks, see bank.hash
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"

	"luksmith/crypttab"
)

// PCRCount is the number of PCRs of a PC (TCG PC Client Platform TPM Profile §4.6).
const PCRCount = 24

// pcrNames are systemd's names of the PCRs (systemd 262 src/shared/tpm2-util.c,
// since 254). Number 8 has none.
var pcrNames = [PCRCount]string{
	0: "platform-code", 1: "platform-config", 2: "external-code", 3: "external-config", 4: "boot-loader-code", 5: "boot-loader-config",
	6: "host-platform", 7: "secure-boot-policy", 9: "kernel-initrd", 10: "ima", 11: "kernel-boot", 12: "kernel-config", 13: "sysexts",
	14: "shim-policy", 15: "system-identity", 16: "debug", 23: "application-support",
}

// PCRName is a word for what a PCR measures, for messages.
func PCRName(pcr int) string {
	if pcr == 8 {
		return "boot-loader-commands" // GRUB's use; systemd has no name for it
	}
	if name := pcrNames[pcr]; name != "" {
		return name
	}
	return "unnamed"
}

// PCRSet is a set of PCR numbers.
type PCRSet uint32

// PCRSetOf takes numbers below [PCRCount].
func PCRSetOf(list ...int) PCRSet {
	var s PCRSet
	for _, i := range list {
		s |= 1 << i
	}
	return s
}

// Has reports whether a PCR is in the set.
func (s PCRSet) Has(pcr int) bool { return s>>pcr&1 == 1 }
func (s PCRSet) len() int         { return bits.OnesCount32(uint32(s)) }

// List returns the numbers in ascending order, never nil.
func (s PCRSet) List() []int {
	list := make([]int, 0, s.len())
	for i := range PCRCount {
		if s.Has(i) {
			list = append(list, i)
		}
	}
	return list
}

// String is the form of --tpm2-pcrs=: "7+11".
func (s PCRSet) String() string {
	var words []string
	for _, i := range s.List() {
		words = append(words, strconv.Itoa(i))
	}
	return strings.Join(words, "+")
}

// selection is the set as TPM commands and policy digests take it: always three
// bytes of bits.
func (s PCRSet) selection(b Bank) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgID(b), PCRSelect: []byte{byte(s), byte(s >> 8), byte(s >> 16)}},
	}}
}

// PCRValues are values of PCRs of one bank.
type PCRValues map[int][]byte

// Set are the PCRs that have a value.
func (v PCRValues) Set() PCRSet {
	var s PCRSet
	for i := range v {
		s |= 1 << i
	}
	return s
}

// digest is the SHA-256 over the values in ascending order, whatever the bank:
// pcrDigest of TPM2_PolicyPCR with a SHA-256 policy session (TPM 2.0 Part 3
// §23.7).
func (v PCRValues) digest() []byte {
	h := crypto.SHA256.New()
	for _, i := range v.Set().List() {
		h.Write(v[i])
	}
	return h.Sum(nil)
}

// Selection is a parsed --tpm2-pcrs=: PCRs, maybe with a bank and values. The
// zero value selects nothing.
type Selection struct {
	Set    PCRSet
	Bank   Bank      // 0: to be chosen
	Values PCRValues // those that were given; the others are read from the TPM
	Twice  PCRSet    // those that stood there twice
}

// ParsePCRs reads "IDX[:BANK[=HEX]]" joined by + or commas, where IDX is a number
// or a name: for options and crypttab alike, as systemd does (src/shared/tpm2-util.c,
// tpm2_parse_pcr_argument). Empty items are skipped. The first bank counts for all; a
// second one is an error, as in systemd 257.
func ParsePCRs(text string) (Selection, error) {
	s := Selection{Values: PCRValues{}}
	// Long enough for 24 SHA-512 values.
	if len(text) > 8192 {
		return s, fmt.Errorf("%d characters are too many for a list of PCRs", len(text))
	}
	for _, item := range strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == ',' }) {
		if err := s.add(item); err != nil {
			return Selection{}, err
		}
	}
	for i, value := range s.Values {
		if len(value) != s.Bank.Size() {
			return Selection{}, fmt.Errorf("the value of PCR %d has %d bytes, a %s value has %d", i, len(value), s.Bank, s.Bank.Size())
		}
	}
	return s, nil
}

func (s *Selection) add(item string) error {
	item, value, _ := strings.Cut(item, "=")
	index, name, _ := strings.Cut(item, ":")
	i, err := ParsePCR(index)
	if err != nil {
		return err
	}
	s.Twice |= s.Set & PCRSetOf(i)
	s.Set |= PCRSetOf(i)
	if err := s.addBank(name); err != nil {
		return err
	}
	switch {
	case value == "":
		return nil
	case name == "":
		return fmt.Errorf("the value of PCR %d needs its bank, as in %d:sha256=HEX", i, i)
	}
	if s.Values[i], err = parseHex(value); err != nil {
		return fmt.Errorf("the value of PCR %d is not hexadecimal", i)
	}
	return nil
}

// addBank notes the bank of one item; "" is none.
func (s *Selection) addBank(name string) error {
	if name == "" {
		return nil
	}
	b, err := ParseBank(strings.ToLower(name))
	if err != nil {
		return err
	}
	if s.Bank != 0 && s.Bank != b {
		return fmt.Errorf("PCRs of two banks (%s and %s) cannot be combined", s.Bank, b)
	}
	s.Bank = b
	return nil
}

// parseHex skips white space and a prefix 0x, as systemd does with values of PCRs.
func parseHex(text string) ([]byte, error) {
	digits := strings.Join(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n\r", r) }), "")
	if len(digits) > 1 && strings.EqualFold(digits[:2], "0x") {
		digits = digits[2:]
	}
	return hex.DecodeString(digits)
}

// Merge adds what a further option selects.
func (s *Selection) Merge(more Selection) error {
	if both := s.Set & more.Set; both != 0 {
		return fmt.Errorf("PCR %s is there twice", both)
	}
	if s.Bank != 0 && more.Bank != 0 && s.Bank != more.Bank {
		return fmt.Errorf("PCRs of two banks (%s and %s) cannot be combined", s.Bank, more.Bank)
	}
	values := maps.Clone(more.Values)
	maps.Copy(values, s.Values)
	*s = Selection{Set: s.Set | more.Set, Bank: max(s.Bank, more.Bank), Values: values}
	return nil
}

// ParsePCR reads a number, as [crypttab.ParseUint] does, or a name.
func ParsePCR(word string) (int, error) {
	if i := slices.Index(pcrNames[:], word); i >= 0 && word != "" {
		return i, nil
	}
	i, err := crypttab.ParseUint(word, 32)
	switch {
	case errors.Is(err, crypttab.ErrBadValue):
		return 0, fmt.Errorf("%.30q is neither the number nor the name of a PCR", word)
	case err != nil:
		return 0, fmt.Errorf("PCR %.30q is out of range 0..%d", word, PCRCount-1)
	case i >= PCRCount:
		return 0, fmt.Errorf("PCR %d is out of range 0..%d", i, PCRCount-1)
	}
	return int(i), nil
}

// LooksUsed reports whether something was measured into one of the PCRs.
func LooksUsed(values PCRValues) bool {
	for _, v := range values {
		if !Unused(v) {
			return true
		}
	}
	return false
}

// Unused is a value that a PCR has after a reset.
func Unused(v []byte) bool {
	return len(bytes.Trim(v, "\x00")) == 0 || len(bytes.Trim(v, "\xff")) == 0
}
