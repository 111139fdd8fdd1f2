package bootchain

import (
	"crypto/sha256"
	"maps"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/boottest"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/efi"
)

// unknownPCRs are those without a value.
func unknownPCRs(p *Prediction) []int {
	var list []int
	for pcr, v := range p.All() {
		if v.Grade == Unknown {
			list = append(list, pcr)
		}
	}
	slices.Sort(list)
	return list
}

// TestVersionsThatWereNotMeasuredAreUnknown replaces each program by one of another
// version: nothing is said of what it writes, though the boot that is running was
// explained.
func TestVersionsThatWereNotMeasuredAreUnknown(t *testing.T) {
	t.Parallel()
	systemd := []int{1, 4, 5, 9, 11, 12, 13}
	for _, c := range []struct {
		chain, state, was, is string
		want                  []int
	}{
		{"uki", "base", "systemd-boot 257.13-1~deb13u1", "systemd-boot 256.4", systemd},
		{"uki", "base", "systemd-boot 257.13-1~deb13u1", "systemd-boot 257~rc2", systemd},
		{"uki", "base", "systemd-stub 257", "systemd-stub 258", systemd},
		{"uki262", "base-again", "systemd-stub 262", "systemd-stub 260.1", systemd},
		{"uki262", "base-again", "systemd-boot 262.1-1", "systemd-boot 263", systemd},
		{"type1-262", "base", "systemd-boot 262.1-1", "systemd-boot 261", systemd},
		{"shim", "base", "shim,16.1", "shim,15.8", []int{4, 7, 14}},
		{"grub", "base", "grub,2.12", "grub,2.14", []int{4, 8, 9}},
		// Without the mark of its version, a program could be any.
		{"uki", "base", "#### LoaderInfo: systemd-boot 257.13-1~deb13u1 ####", "", []int{4, 5, 7, 9, 11, 12, 13}},
		{"uki", "base", "#### LoaderInfo: systemd-stub 257", "#### systemd-stub 257", []int{4, 9, 11, 12, 13}},
	} {
		from, to := loadChain(t, c.chain)[c.state], loadChain(t, c.chain)[c.state]
		to.Edit = func(text string) string { return strings.ReplaceAll(text, c.was, c.is) }
		got := unknownPCRs(pair{chain: c.chain}.predict(t, from, to))
		for _, pcr := range c.want {
			if !slices.Contains(got, pcr) {
				t.Errorf("%s: %s: PCR %d has a value", c.chain, c.is, pcr)
			}
		}
		if slices.Contains(got, 0) || slices.Contains(got, 2) {
			t.Errorf("%s: %s: unknown are %v", c.chain, c.is, got)
		}
		// The way back: what runs was not measured, though its log can be reproduced.
		from, to = to, loadChain(t, c.chain)[c.state]
		for _, pcr := range unknownPCRs(pair{chain: c.chain}.predict(t, from, from)) {
			if got := unknownPCRs(pair{chain: c.chain}.predict(t, from, to)); !slices.Contains(got, pcr) {
				t.Errorf("%s: from %s: PCR %d has a value", c.chain, c.is, pcr)
			}
		}
	}
}

// TestUnmeasuredProgramsThatStayChangeNothing: nothing is predicted from them, but
// what did not change is told from what did.
func TestUnmeasuredProgramsThatStayChangeNothing(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		chain, from, to, was, is string
		same, not                []int
	}{
		{"shim", "base", "base-again", "shim,16.1", "shim,15.8", []int{4, 7, 14}, nil},
		{"shim", "base", "kernel", "shim,16.1", "shim,15.8", []int{7, 14}, []int{4}},
		{"shim", "kernel", "shim", "shim,16.1", "shim,15.8", nil, []int{4, 7, 14}},
		{"uki", "base", "base-again", "systemd-boot 257.13-1~deb13u1", "systemd-boot 259.1", []int{4, 9, 11, 12}, nil},
		{"uki", "base", "initrd", "systemd-boot 257.13-1~deb13u1", "systemd-boot 259.1", []int{12}, []int{4, 9, 11}},
		{"uki", "base", "initrd", "systemd-stub 257", "systemd-stub 259", nil, []int{4, 9, 11, 12, 13}},
	} {
		boots := loadChain(t, c.chain)
		edit := func(text string) string { return strings.ReplaceAll(text, c.was, c.is) }
		boots[c.from].Edit, boots[c.to].Edit = edit, edit
		got := pair{chain: c.chain}.predict(t, boots[c.from], boots[c.to])
		for _, n := range c.same {
			if v := got.Of(n); v.Grade != Unknown || !v.Same || v.Digest != chain.Digest(boots[c.to].PCRs[n]) {
				t.Errorf("%s: %s: PCR %d: %+v", c.chain, c.to, n, v)
			}
		}
		for _, n := range c.not {
			if v := got.Of(n); v.Grade != Unknown || v.Same {
				t.Errorf("%s: %s: PCR %d: %+v", c.chain, c.to, n, v)
			}
		}
	}
}

// TestABootThatIsNotExplainedIsNotPredicted: the files were replaced before anybody
// looked.
func TestABootThatIsNotExplainedIsNotPredicted(t *testing.T) {
	t.Parallel()
	boots := loadChain(t, "uki")
	s := system(t, boots["base"], false)
	s.ESP = boots["kernel"].ESP()
	b, err := s.Postdict()
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Predict(b, b.Entry)
	if err != nil {
		t.Fatal(err)
	}
	if got := unknownPCRs(p); !slices.Equal(got, []int{4, 9, 11}) {
		t.Errorf("unknown: %v", got)
	}
	if r := p.Of(4).Reason; !strings.Contains(r, "the files on the disk do not account for it") {
		t.Errorf("reason %q", r)
	}
}

// TestTheTPMIsBelieved: a value that the log does not account for is not predicted.
func TestTheTPMIsBelieved(t *testing.T) {
	t.Parallel()
	f := loadChain(t, "uki")["base"]
	s := system(t, f, false)
	s.PCRs = maps.Clone(f.PCRs)
	s.PCRs[7] = make([]byte, 32)
	separated := After(chain.Digest(f.PCRs[4]), []string{Separator})
	s.PCRs[4] = separated[:]
	b, err := s.Postdict()
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Predict(b, b.Entry)
	if err != nil {
		t.Fatal(err)
	}
	if v := p.Of(7); v.Grade != Unknown {
		t.Errorf("PCR 7: %+v", v)
	}
	if v := p.Of(4); v.Grade != Exact || v.AtUnlock() != separated || v.Moved {
		t.Errorf("PCR 4 with os-separator: %+v", v)
	}
}

func TestFirmwareSettings(t *testing.T) {
	t.Parallel()
	afterLoader := []int{4, 5, 7, 8, 9, 11, 12, 13, 14}
	var arguments []byte
	for _, e := range loadChain(t, "shim")["base"].Events {
		if name, _, content, ok := e.Variable(); ok && name == "Boot0000" {
			arguments = append(slices.Clone(content), "@1"...)
		}
	}
	for name, c := range map[string]struct {
		changed, added map[string][]byte
		want           []int
	}{
		"nothing":                     {nil, nil, nil},
		"db":                          {map[string][]byte{"db": []byte("x")}, nil, []int{7}},
		"dbx":                         {map[string][]byte{"dbx": []byte("x")}, nil, nil},
		"another boot option first":   {map[string][]byte{"BootOrder": {9, 0, 1, 0}}, nil, append([]int{1}, afterLoader...)},
		"another boot option behind":  {map[string][]byte{"BootOrder": {1, 0, 0, 0, 7, 0}}, nil, []int{1}},
		"shim was asked for a key":    {nil, map[string][]byte{"MokNew-" + efi.Shim: {1}}, []int{4, 7, 14}},
		"arguments in a boot option":  {map[string][]byte{"Boot0000": arguments}, map[string][]byte{"BootCurrent-" + efi.Global: {0, 0}}, append([]int{1}, afterLoader...)},
		"one of a machine's settings": {map[string][]byte{"KEK": nil}, nil, []int{7}},
	} {
		f := loadChain(t, "shim")["base"]
		s := system(t, f, false)
		b, err := s.Postdict()
		if err != nil {
			t.Fatal(err)
		}
		vars := f.Variables(c.changed)
		for name, content := range c.added {
			vars[name] = boottest.Variable(content)
		}
		s.Machine.Variables = efi.Variables{FS: vars}
		p, err := s.Predict(b, b.Entry)
		if err != nil {
			t.Fatal(err)
		}
		if got := unknownPCRs(p); !slices.Equal(got, c.want) {
			t.Errorf("%s: unknown are %v, want %v", name, got, c.want)
		}
		if v := p.Of(7); name == "dbx" && (!v.Moved || len(v.By) != 1) {
			t.Errorf("dbx: %+v", v)
		}
	}
}

func TestAnotherSignerMovesSecureBoot(t *testing.T) {
	t.Parallel()
	boots := loadChain(t, "ukisb")
	boots["kernel"].Signer = "another"
	got := pair{chain: "ukisb"}.predict(t, boots["base"], boots["kernel"])
	if v := got.Of(7); v.Grade != Unknown || !strings.Contains(v.Reason, "not signed by") {
		t.Errorf("PCR 7: %+v", v)
	}
	if v := got.Of(4); v.Grade != Exact {
		t.Errorf("PCR 4: %+v", v)
	}
}

func TestScriptsOfGRUBThatAreNotFollowed(t *testing.T) {
	t.Parallel()
	for name, edit := range map[string]func(string) string{
		"another command":    func(s string) string { return strings.Replace(s, "timeout=0", "timeout=1", 1) },
		"one line more":      func(s string) string { return s + "\necho\n" },
		"a variable":         func(s string) string { return strings.Replace(s, "quiet", "$x", 1) },
		"two initrds":        func(s string) string { return strings.Replace(s, "/lab/initrd1", "/lab/initrd1 /lab/initrd2", 1) },
		"a missing kernel":   func(s string) string { return strings.Replace(s, "/lab/linux1", "/lab/linux9", 1) },
		"commands exchanged": func(s string) string { return strings.Replace(s, "linux /lab", "linuxefi /lab", 1) },
	} {
		boots, next := loadChain(t, "grub"), loadChain(t, "grub")["base"]
		text := edit(string(next.Files["esp/EFI/debian/grub.cfg"]))
		next.Files["esp/EFI/debian/grub.cfg"] = []byte(text)
		x := next.Listing["/EFI/debian/grub.cfg"]
		x.Size = int64(len(text))
		next.Listing["/EFI/debian/grub.cfg"] = x
		got := unknownPCRs(pair{chain: "grub"}.predict(t, boots["base"], next))
		if !slices.Equal(got, []int{4, 8, 9}) {
			t.Errorf("%s: unknown are %v", name, got)
		}
	}
}

func TestWordsOfUserSpace(t *testing.T) {
	t.Parallel()
	left := sha256.Sum256([]byte("left"))
	for _, c := range []struct {
		pcr    int
		said   []string
		before []string
		ok     bool
	}{
		{4, nil, nil, true}, {4, []string{Separator}, []string{Separator}, true}, {4, []string{"other"}, nil, false}, {11, []string{Separator}, nil, false},
		{11, []string{"enter-initrd", "leave-initrd", "sysinit", "ready"}, []string{"enter-initrd"}, true},
		{11, []string{"sysinit", "ready"}, nil, true}, {11, []string{"enter-initrd"}, []string{"enter-initrd"}, true}, {11, []string{"ready", "sysinit"}, nil, false},
	} {
		now := After(left, c.said)
		if before, ok := Words(c.pcr, left, now[:]); ok != c.ok || !slices.Equal(before, c.before) {
			t.Errorf("PCR %d after %q: %q, %v", c.pcr, c.said, before, ok)
		}
	}
}
