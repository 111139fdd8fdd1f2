package bootchain

import (
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/eventlog"
)

// FuzzBoot follows boots of hostile logs, and of entries and scripts of hostile text.
func FuzzBoot(f *testing.F) {
	for _, c := range []string{"uki", "type1", "shim", "grub"} {
		b := loadChain(f, c)["base"]
		f.Add(b.Files["eventlog.bin"], b.Files["esp/loader/entries/lab.conf"], b.Files["esp/EFI/debian/grub.cfg"])
	}
	type1, grub := loadChain(f, "type1")["base"], loadChain(f, "grub")["base"]
	f.Fuzz(func(t *testing.T, log, entry, config []byte) {
		events, _ := eventlog.Parse(log)
		for _, b := range []*boottest.Boot{type1, grub} {
			replaceFile(b, "loader/entries/lab.conf", entry)
			replaceFile(b, "EFI/debian/grub.cfg", config)
			s := &System{Machine: &chain.Machine{Events: events}, ESP: b.ESP()}
			boot, err := s.Postdict()
			if err != nil {
				continue
			}
			p, err := s.Predict(boot, boot.Entry)
			if err != nil {
				t.Fatal(err)
			}
			p.All()
		}
	})
}

func replaceFile(f *boottest.Boot, name string, content []byte) {
	if x, ok := f.Listing["/"+name]; ok {
		x.Size = int64(len(content))
		f.Listing["/"+name], f.Files["esp/"+name] = x, content
	}
}
