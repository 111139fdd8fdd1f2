package tpm2

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/policy"
)

const (
	signatureFile = "tpm2-pcr-signature.json"
	publicKeyFile = "tpm2-pcr-public-key.pem"
	// maxPolicyFile bounds the files of policies. A signature file has about one
	// KiB for every boot phase and bank.
	maxPolicyFile = 1 << 20
)

// loadPCRLock reads the pcrlock policy that the option names or the first in the
// usual places, or nil.
func (h *Handler) loadPCRLock() (*policy.PCRLock, error) {
	candidates := h.Paths.pcrlockFiles()
	if h.PCRLock != nil {
		if *h.PCRLock == "" {
			return nil, nil
		}
		candidates = []string{*h.PCRLock}
	}
	for _, path := range candidates {
		text, err := readFile(path)
		if errors.Is(err, fs.ErrNotExist) && h.PCRLock == nil {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading pcrlock policy: %w", err)
		}
		p, err := policy.ParsePCRLock(text)
		if err != nil {
			return nil, tokens.WithHint(fmt.Errorf("reading pcrlock policy %s: %w", path, err), "make the file again: systemd-pcrlock make-policy")
		}
		p.Path = path
		return p, nil
	}
	return nil, nil
}

// pcrlockFor finds the policy that a token was made with: in the file that the
// option names or those in the usual places, else among the credentials that came
// with the kernel. Without one that belongs to the token it returns the file's, for
// its belongs to say what is wrong, or nil.
func (h *Handler) pcrlockFor(t *token) (*policy.PCRLock, error) {
	file, err := h.loadPCRLock()
	if err != nil || file != nil && file.Belongs(&t.Conditions) == nil || h.PCRLock != nil {
		return file, err
	}
	for _, p := range h.Paths.pcrlockCredentials() {
		if p.Belongs(&t.Conditions) == nil {
			return p, nil
		}
	}
	return file, nil
}

// loadSignatures reads the signature file that an option names or, without one,
// the first in the usual places. It returns nil when there is none or none is
// wanted.
func (h *Handler) loadSignatures() (*policy.Signatures, error) {
	path, text, err := h.findFile(h.Signature, signatureFile)
	if err != nil || text == nil {
		return nil, err
	}
	entries, err := policy.ParseSignatures(text)
	if err != nil {
		return nil, tokens.WithHint(fmt.Errorf("reading signature file %s: %w", path, err), "make the file again: systemd-measure sign")
	}
	return &policy.Signatures{Path: path, Entries: entries}, nil
}

// noSignatureFile says where loadSignatures found none.
func (h *Handler) noSignatureFile() string {
	text := "no signature file was found"
	if h.Signature == nil {
		text += " in " + strings.Join(h.Paths.configFolders(), ", ")
	}
	return text
}

// findFile reads the file that an option names or else the first of that name in
// the folders of systemd's configuration. No file gives no text.
func (h *Handler) findFile(given *string, name string) (path string, text []byte, err error) {
	if given != nil {
		if *given == "" {
			return "", nil, nil
		}
		text, err = readFile(*given)
		return *given, text, err
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
