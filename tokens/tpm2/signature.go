package tpm2

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"luksmith/tokens"
)

const (
	signatureFile = "tpm2-pcr-signature.json"
	publicKeyFile = "tpm2-pcr-public-key.pem"
	// maxPolicyFile bounds the files of policies. A signature file has about one
	// KiB for every boot phase and bank.
	maxPolicyFile = 1 << 20
)

// signatures is a parsed signature file.
type signatures struct {
	path    string
	entries []signature
}

// signature says that the owner of a key approves a PCR policy.
type signature struct {
	bank        bank
	pcrs        pcrSet
	fingerprint [sha256.Size]byte
	policy      policyDigest // PolicyPCR over just these PCRs
	ref         *string      // nil: none
	sig         []byte       // RSASSA-PKCS1-v1_5 with SHA-256 over policy ‖ policyRef(ref)
}

// policyRef is what stands for a policy reference in digests and signatures.
func policyRef(ref *string) []byte {
	if ref == nil {
		return nil
	}
	sum := sha256.Sum256([]byte(*ref))
	return sum[:]
}

// signedDigest is what a signature signs.
func (s *signature) signedDigest() []byte {
	h := sha256.New()
	h.Write(s.policy[:])
	h.Write(policyRef(s.ref))
	return h.Sum(nil)
}

// verify checks the signature without a TPM.
func (s *signature) verify(key *signingKey) bool {
	return rsa.VerifyPKCS1v15(key.rsa, crypto.SHA256, s.signedDigest(), s.sig) == nil
}

// parseSignatures reads {"BANK":[{"pcrs":[11],"pkfp":HEX,"pol":HEX,"sig":BASE64,
// "ref":TEXT},…],…}. Like systemd it skips banks that it does not know and entries
// that lack a member; members of the wrong type are errors.
func parseSignatures(text []byte) ([]signature, error) {
	banks, err := tokens.Members(text)
	if err != nil {
		return nil, errors.New("is no JSON object")
	}
	var list []signature
	for _, name := range slices.Sorted(maps.Keys(banks)) {
		b, err := parseBank(name)
		if err != nil {
			continue
		}
		var entries []json.RawMessage
		if _, err := tokens.Member(banks, name, &entries); err != nil {
			return nil, err
		}
		for i, raw := range entries {
			s, err := parseSignature(raw)
			if err != nil {
				return nil, fmt.Errorf("entry %d of %s: %w", i, name, err)
			}
			if s != nil {
				s.bank = b
				list = append(list, *s)
			}
		}
	}
	return list, nil
}

// parseSignature returns nil for an entry that is not complete.
func parseSignature(raw json.RawMessage) (*signature, error) {
	all, err := tokens.Members(raw)
	if err != nil {
		return nil, err
	}
	m := members(all)
	s := &signature{}
	set, complete, err := m.pcrs("pcrs")
	if err != nil {
		return nil, err
	}
	s.pcrs = set
	for _, member := range []struct {
		name string
		dst  []byte
	}{{"pkfp", s.fingerprint[:]}, {"pol", s.policy[:]}} {
		var text string
		present, err := tokens.Member(all, member.name, &text)
		if err != nil {
			return nil, err
		}
		complete = complete && present
		if b, err := hex.DecodeString(text); present && (err != nil || copy(member.dst, b) != len(member.dst) || len(b) != len(member.dst)) {
			return nil, malformed(member.name, "is not %d bytes in hexadecimal", len(member.dst))
		}
	}
	var text string
	present, err := tokens.Member(all, "sig", &text)
	if err != nil {
		return nil, err
	}
	if s.sig, err = base64.StdEncoding.DecodeString(text); err != nil {
		return nil, malformed("sig", "is not base64")
	}
	var ref string
	if hasRef, err := tokens.Member(all, "ref", &ref); err != nil {
		return nil, err
	} else if hasRef {
		s.ref = &ref
	}
	if !complete || !present {
		return nil, nil
	}
	return s, nil
}

// candidates are the valid signatures for a token's key, PCRs, bank and
// reference. The bank of the token decides, as for systemd.
func (f *signatures) candidates(key *signingKey, b bank, set pcrSet, ref *string) []signature {
	var list []signature
	for _, s := range f.entries {
		sameRef := s.ref == nil && ref == nil || s.ref != nil && ref != nil && *s.ref == *ref
		if s.bank == b && s.pcrs == set && s.fingerprint == key.fingerprint && sameRef && s.verify(key) {
			list = append(list, s)
		}
	}
	return list
}

// loadSignatures reads the signature file that an option names or, without one,
// the first in the usual places. It returns nil when there is none or none is
// wanted.
func (h *Handler) loadSignatures() (*signatures, error) {
	path, text, err := h.findFile(h.signature, signatureFile)
	if err != nil || text == nil {
		return nil, err
	}
	entries, err := parseSignatures(text)
	if err != nil {
		return nil, tokens.WithHint(fmt.Errorf("reading signature file %s: %w", path, err), "make the file again: systemd-measure sign")
	}
	return &signatures{path, entries}, nil
}

// findFile reads the file that an option names or else the first of that name in
// the folders of systemd's configuration. No file gives no text.
func (h *Handler) findFile(o pathOption, name string) (path string, text []byte, err error) {
	if o.given {
		if o.path == "" {
			return "", nil, nil
		}
		text, err = readFile(o.path)
		return o.path, text, err
	}
	for _, folder := range h.Paths.configFolders() {
		path = filepath.Join(folder, name)
		if text, err = readFile(path); !errors.Is(err, fs.ErrNotExist) {
			return path, text, err
		}
	}
	return "", nil, nil
}

// readFile reads a policy file, which may not be larger than maxPolicyFile.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := readLimited(f, maxPolicyFile)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	return text, nil
}

// readLimited reads a whole file of at most limit bytes.
func readLimited(f *os.File, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("it is larger than %d bytes", limit)
	}
	return b, nil
}
