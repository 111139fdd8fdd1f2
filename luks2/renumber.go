package luks2

import (
	"errors"
	"slices"

	"luksmith/luks2/internal/jsondoc"
)

// TakeNumber gives a keyslot that was added in this transaction the number of one that
// was removed in it, so that whoever knows the keyslot by its number finds the new one
// there. It is the last change of a transaction. The new keyslot takes the number in the
// header that drops the old one; before that both stand, under numbers of their own.
func (tx *Tx) TakeNumber(added, removed int) error {
	if !slices.ContainsFunc(tx.added, func(p placed) bool { return p.id == added }) {
		return &KeyslotError{added, errors.New("was not added in this transaction")}
	}
	_, was := tx.view(tx.start).keyslots.byName[name(removed)]
	if _, is := tx.Header().Keyslot(removed); !was || is {
		return &KeyslotError{removed, errors.New("was not removed in this transaction")}
	}
	return tx.edit(true, func(doc *jsondoc.Doc) error { return renumber(doc, name(added), name(removed)) })
}

// renumber moves a keyslot to another number, also in what names it.
func renumber(doc *jsondoc.Doc, from, to string) error {
	k := slices.Clone(doc.Root().Get("keyslots").Get(from).Raw())
	if _, err := doc.Delete("keyslots", from); err != nil {
		return err
	}
	if err := doc.Set(k, "keyslots", to); err != nil {
		return err
	}
	for _, section := range []string{"digests", "tokens"} {
		for _, id := range namesIn(doc, section, from) {
			named, err := doc.DeleteString(from, section, id, "keyslots")
			if err == nil && named {
				err = doc.Append(jsondoc.Quote(to), section, id, "keyslots")
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// namesIn are the members of a section that name a keyslot. Of those that do not there
// may be thousands, and each change reads the document.
func namesIn(doc *jsondoc.Doc, section, slot string) (list []string) {
	for id, object := range doc.Root().Get(section).Members() {
		if object.Get("keyslots").HasString(slot) {
			list = append(list, id)
		}
	}
	return list
}
