package crypttab

import (
	"errors"
	"io/fs"
	"slices"
	"strings"
)

// pair is a combination of options that cannot mean what it says.
type pair struct {
	level  Level
	field  string
	reason string
	wrong  func(*Entry, *Options) bool
}

func (o *Options) has(name string) bool {
	return slices.ContainsFunc(o.Words, func(w Word) bool { return w.Name == name })
}

func (o *Options) anyToken() bool { return len(o.Types) > 0 }

func (o *Options) luks() bool { return o.Mode == ModeAny || o.Mode == ModeLUKS }

var pairs = []pair{
	{Bad, "options", "both swap and tmp", func(_ *Entry, o *Options) bool { return o.Swap && o.Temporary != "" }},
	{Bad, "options", "plain without cipher=, size= and hash= is read differently by systemd, cryptsetup and Debian's scripts", func(_ *Entry, o *Options) bool {
		return o.Mode == ModePlain && !o.Swap && o.Temporary == "" && (o.Cipher == "" || o.KeySizeBits == 0 || o.Hash == "")
	}},
	{Suspect, "options: link-volume-key=", "attach-all does not open a volume with this option; systemd or cryptsetup does", func(_ *Entry, o *Options) bool { return o.LinkVolumeKey != "" }},
	{Bad, "options: read-only", "a volume that gets a new file system at each boot cannot be read-only", func(_ *Entry, o *Options) bool { return o.ReadOnly && (o.Swap || o.Temporary != "") }},
	{Suspect, "options", "options of plain volumes have no effect on LUKS", func(_ *Entry, o *Options) bool {
		return o.luks() && (o.Cipher != "" || o.Hash != "" || o.KeySizeBits != 0 || o.has("sector-size"))
	}},
	{Suspect, "options: headless", "no key file and no token option: only a token that is there at once, a file in keys.d or a credential opens the volume", func(e *Entry, o *Options) bool {
		return o.Headless && e.Key.Path == "" && !o.anyToken() && !o.TokenOnly && !o.TryEmptyPassword
	}},
	{Suspect, "options: verify", "nobody is asked because of headless", func(_ *Entry, o *Options) bool { return o.Headless && o.Verify }},
	{Suspect, "options: luksmith-token-only", "no token option says which token to wait for; only those present at once are tried", func(_ *Entry, o *Options) bool { return o.TokenOnly && !o.anyToken() }},
	{Suspect, "options: try-empty-password", "no passphrase is tried because of luksmith-token-only", func(_ *Entry, o *Options) bool { return o.TokenOnly && o.TryEmptyPassword }},
	{Suspect, "options: token-timeout=", "no token option is given, so nothing is waited for", func(_ *Entry, o *Options) bool { return o.has("token-timeout") && !o.anyToken() }},
	{Suspect, "options: tpm2-measure-bank=", "no effect without tpm2-measure-pcr= or luksmith-latch, and none at all since systemd 262", func(_ *Entry, o *Options) bool {
		return len(o.MeasureBanks) > 0 && o.MeasurePCR < 0 && !o.Latch
	}},
	{Suspect, "options", "no key file is named, so the keyfile- options have no effect", func(e *Entry, o *Options) bool {
		return e.Key.Path == "" && (o.KeyFileSize != 0 || o.KeyFileOffset != 0 || o.KeyFileErase || o.KeyFileTimeout != nil)
	}},
	{Suspect, "options: keyfile-erase", "the key file stays, because its device is mounted read-only", func(e *Entry, o *Options) bool {
		return o.KeyFileErase && e.Key.Device != nil
	}},
	{Info, "options: _netdev", "orders systemd's units; without them nothing waits for the network", func(_ *Entry, o *Options) bool { return o.NetDev }},
	{Info, "options: keyfile-timeout=", "systemd waits in its generated units, so attach called by hand does not know it there", func(e *Entry, o *Options) bool {
		return o.KeyFileTimeout != nil && e.Key.Path != "" && e.Key.Device == nil
	}},
}

// foreign is the option that makes a volume other than LUKS.
func (o *Options) foreign() string {
	switch {
	case o.Swap:
		return "swap"
	case o.Temporary != "":
		return "tmp"
	}
	return strings.ToLower(string(o.Mode))
}

func (l *linter) checkOptions(e *Entry, o *Options) {
	for _, p := range pairs {
		if p.wrong(e, o) {
			l.add(p.level, e, p.field, "%s", p.reason)
		}
	}
	if !o.luks() {
		l.add(Suspect, e, "options: "+o.foreign(), "attach-all does not open it; systemd or cryptsetup does")
	}
	l.checkNeeds(e, o)
	var generator []string
	for _, w := range o.Words {
		if row := l.grammar.find(w); row.Use == ForGenerator {
			generator = append(generator, w.Name)
		}
	}
	if len(generator) > 0 {
		l.add(Info, e, "options", "%s: for systemd's generator and attach-all; attach itself does not look at them", strings.Join(generator, ", "))
	}
}

// checkNeeds looks at what options of token types want besides themselves.
func (l *linter) checkNeeds(e *Entry, o *Options) {
	for _, w := range o.Words {
		row := l.grammar.find(w)
		if row.Check != nil {
			if err := row.Check(w.Value); err != nil { // one that systemd takes
				l.add(Suspect, e, "options: "+w.String(), "%w, so this way to a key will fail", err)
			}
		}
		if strings.HasPrefix(w.Value, "/dev/") {
			if _, err := l.stat(w.Value); errors.Is(err, fs.ErrNotExist) {
				l.add(Suspect, e, "options: "+w.String(), "%s does not exist now", w.Value)
			}
		}
		switch {
		case row.NeedsKeyFile && row.replacesToken(w) && e.Key.Path == "":
			l.add(Bad, e, "options: "+row.Spelling(), "the third field must name the file with the rest of the parameters")
		case row.Needs != "" && !l.has(o, row.Needs):
			l.add(Suspect, e, "options: "+row.Spelling(), "no effect without %s", row.Needs)
		}
	}
}

// replacesToken reports whether the word stands for a token that is not in the header.
func (row *Option) replacesToken(w Word) bool { return row.NeedsKeyFile && w.Value != "auto" }

// has reports whether an option was given so that others can build on it.
func (l *linter) has(o *Options, name string) bool {
	return slices.ContainsFunc(o.Words, func(w Word) bool {
		row := l.grammar.find(w)
		return w.Name == name && (!row.NeedsKeyFile || row.replacesToken(w))
	})
}
