package forecast

import "luksmith/tokens/tpm2/bootrecord"

// EntryTitle is what a boot entry called itself in the newest boot that it was started
// for; "" if no record knows it.
func EntryTitle(root, id string) string {
	boots, _ := bootrecord.State(root).Boots() // those that cannot be read know nothing
	for _, b := range boots {
		if b.Chain != nil && b.Chain.Entry.ID == id {
			return b.Chain.Entry.Title
		}
	}
	return ""
}
