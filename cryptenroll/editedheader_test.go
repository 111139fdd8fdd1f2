package main

import (
	"encoding/json"
	"maps"
	"slices"
)

// keyslotOf is the keyslot of the victim's token.
const keyslotOf = "1"

// in is the object at a path of the metadata.
func in(metadata map[string]any, path ...string) map[string]any {
	for _, name := range path {
		metadata = metadata[name].(map[string]any)
	}
	return metadata
}

// aroundTheToken are changes of what a token stands in: its keyslot, whose salt ties the
// MAC to it, the digest, tokens beside it, and what names the keyslot.
var aroundTheToken = map[string]func(metadata map[string]any){
	"salt": func(m map[string]any) {
		kdf := in(m, "keyslots", keyslotOf, "kdf")
		kdf["salt"] = turned(kdf["salt"].(string), 3)
	},
	"iterations": func(m map[string]any) { in(m, "keyslots", keyslotOf, "kdf")["iterations"] = 2000 },
	"hash":       func(m map[string]any) { in(m, "keyslots", keyslotOf, "kdf")["hash"] = "sha1" },
	"area": func(m map[string]any) {
		in(m, "keyslots", keyslotOf, "area")["offset"] = in(m, "keyslots", "0", "area")["offset"]
	},
	"cipher":      func(m map[string]any) { in(m, "keyslots", keyslotOf, "area")["encryption"] = "aes-cbc-plain64" },
	"stripes":     func(m map[string]any) { in(m, "keyslots", keyslotOf, "af")["hash"] = "sha1" },
	"ignored":     func(m map[string]any) { in(m, "keyslots", keyslotOf)["priority"] = 0 },
	"preferred":   func(m map[string]any) { in(m, "keyslots", keyslotOf)["priority"] = 2 },
	"no digest":   func(m map[string]any) { in(m, "digests", "0")["keyslots"] = []string{"0"} },
	"no keyslot":  func(m map[string]any) { in(m, "tokens", "0")["keyslots"] = []string{} },
	"passphrase":  func(m map[string]any) { in(m, "tokens", "0")["keyslots"] = []string{"0"} },
	"both":        func(m map[string]any) { in(m, "tokens", "0")["keyslots"] = []string{"0", keyslotOf} },
	"number":      func(m map[string]any) { t := in(m, "tokens"); t["9"] = t["0"]; delete(t, "0") },
	"late number": func(m map[string]any) { t := in(m, "tokens"); t["40"] = t["0"]; delete(t, "0") },
	"other type":  func(m map[string]any) { in(m, "tokens", "0")["type"] = "systemd-recovery" },
	"twice":       func(m map[string]any) { in(m, "tokens")["1"] = maps.Clone(in(m, "tokens", "0")) },
	"weaker one beside it": func(m map[string]any) {
		weak := maps.Clone(in(m, "tokens", "0"))
		weak["tpm2-pin"], weak["tpm2-pcrs"] = false, []int{}
		in(m, "tokens")["1"] = weak
	},
	"weaker one of the passphrase": func(m map[string]any) {
		weak := maps.Clone(in(m, "tokens", "0"))
		weak["tpm2-pin"], weak["tpm2-pcrs"], weak["keyslots"] = false, []int{}, []string{"0"}
		in(m, "tokens")["1"] = weak
	},
}

// around are these changes, each alone and with an edit of the token that takes the
// demand for a person out of it.
func (v *victim) around() (list []edit) {
	for _, name := range slices.Sorted(maps.Keys(aroundTheToken)) {
		change := aroundTheToken[name]
		list = append(list, edit{name, func(map[string]json.RawMessage) {}, change},
			edit{name + ", no PIN", func(m map[string]json.RawMessage) { delete(m, "tpm2-pin") }, change})
	}
	return list
}
