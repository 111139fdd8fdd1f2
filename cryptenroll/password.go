package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"luksmith/luks2"
	"luksmith/tokens"
)

// kdfOptions are the costs of a passphrase's keyslot, with the names that
// cryptsetup(8) gives them. Zero values are chosen by measuring this machine.
type kdfOptions struct {
	memoryKiB, parallel, iterations int
	kind                            string
}

// The range of --pbkdf-memory=, as cryptsetup has it.
const (
	minKiB = 32
	maxKiB = 4 << 20
)

func (k *kdfOptions) addFlags(f *pflag.FlagSet) {
	f.StringVar(&k.kind, "pbkdf", string(luks2.KDFArgon2id), "for --password: use `KDF` argon2id, argon2i or pbkdf2, measured to take cryptsetup 2 s")
	f.IntVar(&k.memoryKiB, "pbkdf-memory", 0, "for --password: use `KIB` of memory")
	f.IntVar(&k.parallel, "pbkdf-parallel", 0, "for --password: use `THREADS`")
	f.IntVar(&k.iterations, "pbkdf-force-iterations", 0, "for --password: make `PASSES`")
}

func (k *kdfOptions) check() error {
	switch luks2.KDFType(k.kind) {
	case luks2.KDFArgon2id, luks2.KDFArgon2i, luks2.KDFPBKDF2:
	default:
		return usagef("--pbkdf=%s: want argon2id, argon2i or pbkdf2", k.kind)
	}
	if k.memoryKiB < 0 || k.parallel < 0 || k.iterations < 0 {
		return usagef("the costs of --pbkdf-… are positive numbers")
	}
	if k.memoryKiB != 0 && (k.memoryKiB < minKiB || k.memoryKiB > maxKiB) {
		return usagef("--pbkdf-memory=%d: want %d to %d KiB", k.memoryKiB, minKiB, maxKiB)
	}
	return nil
}

// choose fills in what the options leave open, so that one try takes about two
// seconds here, as cryptsetup does.
func (k *kdfOptions) choose(ctx context.Context) (luks2.KDF, error) {
	kdf := luks2.KDF{Type: luks2.KDFType(k.kind), MemoryKiB: k.memoryKiB, Parallel: k.parallel}
	if kdf.Type == luks2.KDFPBKDF2 {
		kdf.Hash, kdf.Iterations = "sha256", k.iterations
	} else {
		kdf.Time = k.iterations
	}
	return luks2.Calibrate(ctx, kdf)
}

// passphraseEnroller makes a keyslot without token from a passphrase that is
// typed, or that comes from $NEWPASSWORD or a credential.
type passphraseEnroller struct {
	person *asking
	kdf    *kdfOptions
}

// Plan says what Enroll makes.
func (p *passphraseEnroller) Plan(*tokens.EnrollRequest) (string, error) {
	if err := p.kdf.check(); err != nil {
		return "", err
	}
	return "passphrase, " + p.kdf.kind, nil
}

// Enroll asks for the passphrase and measures the machine.
func (p *passphraseEnroller) Enroll(ctx context.Context, req *tokens.EnrollRequest, _ tokens.UI) (*tokens.Enrollment, error) {
	passphrase, err := p.person.asker().NewPassphrase(ctx, req.Volume.Device)
	if err != nil {
		return nil, err
	}
	done := p.person.meanwhile("Measuring how much this machine can compute in two seconds.")
	kdf, err := p.kdf.choose(ctx)
	done()
	if err != nil {
		passphrase.Wipe()
		return nil, err
	}
	e := &tokens.Enrollment{Passphrase: passphrase, KDF: kdf, Proven: true, Label: req.Label, Requires: []string{"passphrase"}, Made: "passphrase (" + costText(&kdf) + ")"}
	if passphrase.Len() == 0 {
		e.Notes = []string{"the new passphrase is empty: whoever has the disk can read it"}
	}
	return e, nil
}

// costText is what a keyslot costs whoever guesses: "Argon2id, 1 GiB".
func costText(k *luks2.KDF) string {
	switch {
	case k.Type == luks2.KDFPBKDF2:
		return fmt.Sprintf("PBKDF2, %d passes", k.Iterations)
	case k.MemoryKiB%(1<<20) == 0:
		return fmt.Sprintf("%s, %d GiB", sentence(string(k.Type)), k.MemoryKiB>>20)
	case k.MemoryKiB >= 1024:
		return fmt.Sprintf("%s, %d MiB", sentence(string(k.Type)), k.MemoryKiB>>10)
	}
	return fmt.Sprintf("%s, %d KiB", sentence(string(k.Type)), k.MemoryKiB)
}

// sentence begins a text with a capital letter.
func sentence(text string) string { return strings.ToUpper(text[:1]) + text[1:] }
