package fido2

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens"
)

// refused notes that a pre-flight failed. A blocked key answers no other one.
func (k *key) refused(err error) {
	k.unasked = cmp.Or(k.unasked, err)
	if errors.Is(err, tokens.ErrLocked) {
		k.dead = err
	}
}

// outcome is the error of a call in which no token opened the volume. What is wrong
// with a key that is plugged in is told once, beside or as the error of a token.
func (u *unlocking) outcome(ks *keys) error {
	told := map[*key]bool{}
	for _, w := range u.wanted {
		if w.found {
			continue
		}
		if k := w.blocked(ks); k != nil {
			u.fail(w.token, k.unasked)
			told[k] = true
			continue
		}
		u.fail(w.token, w.absent(ks))
	}
	failures := append(u.failures, ks.problems...)
	for _, k := range ks.list {
		if k.unasked != nil && !told[k] {
			failures = append(failures, k.unasked)
		}
	}
	return errors.Join(failures...)
}

// blocked is the key that is plugged in, refuses every request because its PIN is
// blocked, and may be the one of a token; nil without one.
func (w *wanted) blocked(ks *keys) *key {
	i := slices.IndexFunc(ks.list, func(k *key) bool {
		return errors.Is(k.unasked, tokens.ErrLocked) && (!w.knowsModel() || w.sameModel(k))
	})
	if i < 0 {
		return nil
	}
	return ks.list[i]
}

// noModel is the AAGUID of keys that tell none.
const noModel = "00000000-0000-0000-0000-000000000000"

// knowsModel reports whether the token says which model of key made it.
func (w *wanted) knowsModel() bool { return w.p.extra.AAGUID != "" && w.p.extra.AAGUID != noModel }

// sameModel reports whether a key is of the model that made the token, as far as both
// tell.
func (w *wanted) sameModel(k *key) bool {
	if w.knowsModel() {
		return w.p.extra.AAGUID == formatAAGUID(k.info.AAGUID)
	}
	return w.p.extra.Device != "" && w.p.extra.Device == k.name
}

// absent says what is there instead of the key of a token.
func (w *wanted) absent(ks *keys) error {
	name := "its key"
	if w.p.label != "" {
		name = fmt.Sprintf("key %q", printable(w.p.label, maxName))
	}
	asked := slices.DeleteFunc(slices.Clone(ks.list), func(k *key) bool { return k.unasked != nil })
	for _, k := range asked {
		if w.sameModel(k) {
			return fmt.Errorf("%w: %s is there but does not hold the credential of %s: it is another key of that model, or it was reset",
				tokens.ErrNoDevice, k.place(), name)
		}
	}
	switch unasked := len(ks.problems) + len(ks.list) - len(asked); {
	case len(asked) > 0:
		return fmt.Errorf("%w: %s is not plugged in; there is %s", tokens.ErrNoDevice, name, places(asked))
	case unasked > 0:
		return fmt.Errorf("%w: nothing that is plugged in could be asked whether it is %s", tokens.ErrNoDevice, name)
	}
	return fmt.Errorf("%w: %s is not plugged in", tokens.ErrNoDevice, name)
}

// place is where a key is, and its name.
func (k *key) place() string {
	return fmt.Sprintf("%s (%s)", printable(k.device.Path, maxName), k.name)
}

// places lists keys for an error message.
func places(list []*key) string {
	var texts []string
	for _, k := range list {
		texts = append(texts, k.place())
	}
	return strings.Join(texts, ", ")
}
