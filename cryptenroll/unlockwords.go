package main

import (
	"fmt"
	"strings"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// notOpened is luks2.ErrNoKey in words that say what was tried, or that there was
// nothing to try.
type notOpened struct{ text string }

func (e *notOpened) Error() string { return e.text }

// Is makes it luks2.ErrNoKey.
func (e *notOpened) Is(target error) bool { return target == luks2.ErrNoKey }

// title is the kind of a keyslot in a sentence.
func title(kind string) string {
	switch kind {
	case "tpm2":
		return "TPM2"
	case "fido2":
		return "FIDO2"
	case "pkcs11":
		return "PKCS#11"
	}
	return kind
}

// nothingOf says why no token of a type was asked.
func (u *unlocker) nothingOf(t *target, h tokens.Handler) error {
	if s, ok := t.slot(u.how.slot); ok && s.Kind != h.Name() {
		return &notOpened{fmt.Sprintf("%s of %s has no %s token", s.String(), t.path, title(h.Name()))}
	}
	return &notOpened{t.noneText(h, u.how.slot)}
}

// noneText says why no keyslot of a type, or not the one that is meant, can be used.
func (v *volume) noneText(h tokens.Handler, slot int) string {
	var why []string
	for _, s := range v.slots {
		if s.Kind == h.Name() && (slot == luks2.AnySlot || slot == s.ID) {
			why = append(why, s.String()+": "+s.State())
		}
	}
	if len(why) == 0 {
		return fmt.Sprintf("%s has no %s keyslot", v.path, title(h.Name()))
	}
	return fmt.Sprintf("no %s keyslot of %s can be tried here: %s", title(h.Name()), v.path, strings.Join(why, "; "))
}

// notBy says that a passphrase from somewhere opens nothing. A key file that was made
// with an editor ends with a line end, which belongs to the key.
func (u *unlocker) notBy(t *target, how string, passphrase secret.Secret) error {
	text := fmt.Sprintf("%s opens no keyslot of %s", how, t.path)
	if s, ok := t.slot(u.how.slot); ok {
		text = fmt.Sprintf("%s does not open %s of %s", how, s.String(), t.path)
	}
	if b := passphrase.Bytes(); u.how.keyFile != "" && len(b) > 0 && b[len(b)-1] == '\n' {
		text += "; it ends with a line end, which counts as a part of the key"
	}
	return &notOpened{text}
}
