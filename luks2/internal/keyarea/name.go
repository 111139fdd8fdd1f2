package keyarea

import "strings"

// algorithm is the name of a cipher taken apart, as dm-crypt and libcryptsetup do.
type algorithm struct {
	cipher string // "aes", "xchacha12,aes"
	mode   string // "xts"
	iv     string // "plain64", "essiv:sha256"; "" for none
}

// maxName bounds the parts of a name. It comes from an untrusted header, and the
// kernel loads the module of the name that it is given.
const maxName = 32

// parse reads "cipher-mode-iv", or "capi:mode(cipher)-iv" as the kernel names it.
// The null cipher is no cipher here: any passphrase would open its key area.
func parse(name string) (a algorithm, ok bool) {
	if inner, capi := strings.CutPrefix(name, "capi:"); capi {
		var rest string
		if a.mode, rest, ok = strings.Cut(inner, "("); !ok {
			return a, false
		}
		if a.cipher, a.iv, ok = strings.Cut(rest, ")-"); !ok {
			return a, false
		}
	} else {
		a.cipher, a.mode, _ = strings.Cut(name, "-")
		a.mode, a.iv, _ = strings.Cut(a.mode, "-")
	}
	if a.iv == "" && a.mode != "ecb" { // the short forms of old volumes
		a.mode, a.iv = "cbc", "plain"
	}
	return a, isWord(a.cipher, "_,") && isWord(a.mode, "_") && !strings.Contains(a.cipher, "null")
}

// isWord reports whether a text is made of lower-case letters, digits and the marks.
func isWord(s, marks string) bool {
	strange := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || strings.ContainsRune(marks, r))
	}
	return s != "" && len(s) <= maxName && !strings.ContainsFunc(s, strange)
}

// ivSize is the length of the IV in bytes.
func (a algorithm) ivSize() int {
	switch a.mode {
	case "ecb":
		return 0
	case "adiantum", "hctr2":
		return 32
	}
	switch a.cipher {
	case "blowfish", "cast5", "des", "des3_ede", "khazad", "tea", "xtea":
		return 8
	}
	return 16
}

// modules are those of the kernel that compute the algorithm for programs.
func (a algorithm) modules() []string {
	cipher := a.cipher
	switch cipher {
	case "aes", "serpent", "twofish", "camellia", "blowfish", "cast5", "cast6", "des", "sm4", "aria":
		cipher += "_generic"
	case "des3_ede":
		cipher = "des_generic"
	case "xtea":
		cipher = "tea"
	case "xchacha12,aes", "xchacha20,aes":
		cipher = "chacha_generic"
	}
	return []string{"algif_skcipher", a.mode, cipher}
}
