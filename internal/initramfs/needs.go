// Package initramfs says what an initrd must have for its volumes to be opened. Hooks
// ask before an image is made, and its reader afterwards.
package initramfs

import (
	"slices"
	"strings"

	"luksmith/tokens"
)

// Needs is what the volumes of one image call for, besides cryptsetup-unit itself. The
// lists have no order.
type Needs struct {
	Modules []string         `json:"modules,omitempty"` // kernel modules, by name or alias
	Folders []string         `json:"folders,omitempty"` // of kernel modules, below kernel/
	Helpers []string         `json:"helpers,omitempty"` // programs beside cryptsetup-unit
	Opens   []tokens.Library `json:"opens,omitempty"`
	Files   []string         `json:"files,omitempty"` // key files and detached headers of this system
}

// AddCipher adds what dm-crypt needs for a cipher as the header names it, such as
// "aes-xts-plain64". The kernel resolves the aliases to every implementation.
func (n *Needs) AddCipher(spec string) {
	n.Modules = add(n.Modules, "dm_crypt")
	if rest, ok := strings.CutPrefix(spec, "capi:"); ok { // capi:xts(aes)-plain64
		for _, word := range strings.FieldsFunc(rest[:max(0, strings.LastIndex(rest, "-"))], func(r rune) bool { return strings.ContainsRune("(),", r) }) {
			n.Modules = add(n.Modules, "crypto-"+word)
		}
		return
	}
	cipher, mode, _ := strings.Cut(spec, "-")
	mode, iv, _ := strings.Cut(mode, "-")
	iv, hash, _ := strings.Cut(iv, ":")
	for word := range strings.SplitSeq(cipher, ",") { // xchacha12,aes-adiantum
		n.Modules = add(n.Modules, "crypto-"+word)
	}
	n.Modules = add(n.Modules, "crypto-"+mode)
	if iv == "essiv" {
		n.Modules = add(n.Modules, "crypto-essiv", "crypto-"+hash)
	}
}

// AddType adds what the devices of a token type need.
func (n *Needs) AddType(h tokens.Handler) {
	needer, ok := h.(tokens.BootNeeder)
	if !ok {
		return
	}
	more := needer.BootNeeds()
	n.Modules, n.Folders = add(n.Modules, more.Modules...), add(n.Folders, more.Folders...)
	n.Helpers = add(n.Helpers, more.Helpers...)
	for _, library := range more.Opens {
		if !slices.Contains(n.Opens, library) {
			n.Opens = append(n.Opens, library)
		}
	}
}

// AddUnknown adds what a volume may need whose header cannot be read now.
func (n *Needs) AddUnknown(all tokens.Set) {
	n.AddCipher("aes-xts-plain64")
	n.AddCipher("aes-cbc-essiv:sha256")
	for _, h := range all {
		n.AddType(h)
	}
}

// AddFile adds a file of this system.
func (n *Needs) AddFile(path string) { n.Files = add(n.Files, path) }

// add appends what is new and not empty.
func add(list []string, words ...string) []string {
	for _, w := range words {
		if w != "" && w != "crypto-" && !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	return list
}
