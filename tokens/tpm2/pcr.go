package tpm2

import (
	"crypto"
	_ "crypto/sha1" // banks, see bank.hash
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/hex"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/google/go-tpm/tpm2"
)

// maxPCRs is the number of PCRs of a PC (TCG PC Client Platform TPM Profile §4.6).
const maxPCRs = 24

// pcrNames are systemd's names of the PCRs (systemd 262 src/shared/tpm2-util.c,
// since 254). Number 8 has none.
var pcrNames = [maxPCRs]string{
	0: "platform-code", 1: "platform-config", 2: "external-code", 3: "external-config", 4: "boot-loader-code", 5: "boot-loader-config",
	6: "host-platform", 7: "secure-boot-policy", 9: "kernel-initrd", 10: "ima", 11: "kernel-boot", 12: "kernel-config", 13: "sysexts",
	14: "shim-policy", 15: "system-identity", 16: "debug", 23: "application-support",
}

// pcrName is a word for what a PCR measures, for messages.
func pcrName(pcr int) string {
	if pcr == 8 {
		return "boot-loader-commands" // GRUB's use; systemd has no name for it
	}
	if name := pcrNames[pcr]; name != "" {
		return name
	}
	return "unnamed"
}

// bank is a PCR bank, identified by its hash. 0 is none.
type bank tpm2.TPMAlgID

const (
	bankSHA1   = bank(tpm2.TPMAlgSHA1)
	bankSHA256 = bank(tpm2.TPMAlgSHA256)
	bankSHA384 = bank(tpm2.TPMAlgSHA384)
	bankSHA512 = bank(tpm2.TPMAlgSHA512)
)

// bankNames are the banks that systemd's tokens know.
var bankNames = map[bank]string{bankSHA1: "sha1", bankSHA256: "sha256", bankSHA384: "sha384", bankSHA512: "sha512"}

func parseBank(name string) (bank, error) {
	for b, n := range bankNames {
		if n == name {
			return b, nil
		}
	}
	return 0, fmt.Errorf("%.20q is no PCR bank; banks are sha1, sha256, sha384 and sha512", name)
}

// String is the name of the hash.
func (b bank) String() string {
	if name, ok := bankNames[b]; ok {
		return name
	}
	return fmt.Sprintf("bank %#x", uint16(b))
}

func (b bank) hash() crypto.Hash {
	return map[bank]crypto.Hash{bankSHA1: crypto.SHA1, bankSHA256: crypto.SHA256, bankSHA384: crypto.SHA384, bankSHA512: crypto.SHA512}[b]
}

// size is the length of a PCR value, 0 when there is no bank.
func (b bank) size() int {
	if h := b.hash(); h != 0 {
		return h.Size()
	}
	return 0
}

// pcrSet is a set of PCR numbers.
type pcrSet uint32

func pcrSetOf(list ...int) pcrSet {
	var s pcrSet
	for _, i := range list {
		s |= 1 << i
	}
	return s
}

func (s pcrSet) has(pcr int) bool { return s>>pcr&1 == 1 }
func (s pcrSet) len() int         { return bits.OnesCount32(uint32(s)) }

// list returns the numbers in ascending order, never nil.
func (s pcrSet) list() []int {
	list := make([]int, 0, s.len())
	for i := range maxPCRs {
		if s.has(i) {
			list = append(list, i)
		}
	}
	return list
}

// String is the form of --tpm2-pcrs=: "7+11".
func (s pcrSet) String() string {
	var words []string
	for _, i := range s.list() {
		words = append(words, strconv.Itoa(i))
	}
	return strings.Join(words, "+")
}

// selection is the set as TPM commands and policy digests take it: always three
// bytes of bits.
func (s pcrSet) selection(b bank) tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgID(b), PCRSelect: []byte{byte(s), byte(s >> 8), byte(s >> 16)}},
	}}
}

// pcrValues are values of PCRs of one bank.
type pcrValues map[int][]byte

func (v pcrValues) set() pcrSet {
	var s pcrSet
	for i := range v {
		s |= 1 << i
	}
	return s
}

// digest is the SHA-256 over the values in ascending order, whatever the bank:
// pcrDigest of TPM2_PolicyPCR with a SHA-256 policy session (TPM 2.0 Part 3
// §23.7).
func (v pcrValues) digest() []byte {
	h := crypto.SHA256.New()
	for _, i := range v.set().list() {
		h.Write(v[i])
	}
	return h.Sum(nil)
}

// pcrSelection is a parsed --tpm2-pcrs=: PCRs, maybe with a bank and values. The
// zero value selects nothing.
type pcrSelection struct {
	set    pcrSet
	bank   bank      // 0: to be chosen
	values pcrValues // those that were given; the others are read from the TPM
}

// parsePCRs reads "IDX[:BANK[=HEX]]" joined by + or commas, where IDX is a number
// or a name. The empty string selects nothing. The first bank counts for all;
// unlike systemd, a second one is refused here already and not at sealing.
func parsePCRs(text string) (pcrSelection, error) {
	s := pcrSelection{values: pcrValues{}}
	if text == "" {
		return s, nil
	}
	// Long enough for 24 SHA-512 values.
	if len(text) > 8192 {
		return s, fmt.Errorf("%d characters are too many for a list of PCRs", len(text))
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return r == '+' || r == ',' })
	if len(words) == 0 {
		return s, fmt.Errorf("%.20q names no PCR", text)
	}
	for _, word := range words {
		if err := s.add(word); err != nil {
			return pcrSelection{}, err
		}
	}
	for i, value := range s.values {
		if len(value) != s.bank.size() {
			return pcrSelection{}, fmt.Errorf("the value of PCR %d has %d bytes, a %s value has %d", i, len(value), s.bank, s.bank.size())
		}
	}
	return s, nil
}

func (s *pcrSelection) add(word string) error {
	index, rest, hasBank := strings.Cut(word, ":")
	i, err := parsePCR(index)
	if err != nil {
		return err
	}
	if s.set.has(i) {
		return fmt.Errorf("PCR %d is there twice", i)
	}
	s.set |= 1 << i
	if !hasBank {
		return nil
	}
	name, value, hasValue := strings.Cut(rest, "=")
	b, err := parseBank(name)
	if err != nil {
		return err
	}
	if s.bank != 0 && s.bank != b {
		return fmt.Errorf("PCRs of two banks (%s and %s) cannot be combined", s.bank, b)
	}
	s.bank = b
	if !hasValue {
		return nil
	}
	if s.values[i], err = hex.DecodeString(strings.TrimPrefix(value, "0x")); err != nil {
		return fmt.Errorf("the value of PCR %d is not hexadecimal", i)
	}
	return nil
}

// merge adds what a further option selects.
func (s *pcrSelection) merge(more pcrSelection) error {
	if both := s.set & more.set; both != 0 {
		return fmt.Errorf("PCR %s is there twice", both)
	}
	if s.bank != 0 && more.bank != 0 && s.bank != more.bank {
		return fmt.Errorf("PCRs of two banks (%s and %s) cannot be combined", s.bank, more.bank)
	}
	values := maps.Clone(more.values)
	maps.Copy(values, s.values)
	*s = pcrSelection{set: s.set | more.set, bank: max(s.bank, more.bank), values: values}
	return nil
}

// parsePCR reads a number or a name.
func parsePCR(word string) (int, error) {
	if i := slices.Index(pcrNames[:], word); i >= 0 && word != "" {
		return i, nil
	}
	i, err := strconv.ParseUint(word, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%.30q is neither the number nor the name of a PCR", word)
	}
	if i >= maxPCRs {
		return 0, fmt.Errorf("PCR %d is out of range 0..%d", i, maxPCRs-1)
	}
	return int(i), nil
}
