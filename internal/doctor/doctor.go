// Package doctor answers whether a volume will open, now and after the next reboot,
// and if not, why. It looks at nothing itself: a [Patient] holds what was read, so
// that every finding can be shown by a test. It writes nothing either; what may be
// repaired without a key comes as a function for a transaction.
package doctor

import (
	"cmp"
	"slices"

	"luksmith/crypttab"
	"luksmith/luks2"
	"luksmith/tokens"
)

// Severity says how bad a finding is.
type Severity int

const (
	// Note is worth knowing; nothing has to be done.
	Note Severity = iota
	// Warning weakens the volume or will end a way into it some day.
	Warning
	// Problem keeps something from opening the volume that was meant to.
	Problem
)

var severityWords = [...]string{"note", "warning", "problem"}

// String is the word for people.
func (s Severity) String() string { return severityWords[s] }

// MarshalText is the word in JSON, the same.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that a person should know.
type Finding struct {
	// Check is a word that stays the same over versions: "token-closed".
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Slot is the keyslot that it is about, nil for none.
	Slot *int `json:"slot"`
	// About names what it is about: `keyslot 2 (tpm2, "laptop")`, "header".
	About string `json:"about"`
	// Text says in one clause what it means.
	Text string `json:"text"`
	// Command mends it; "" if no command does.
	Command string `json:"command,omitempty"`
	// Fix mends it without a key and takes no way in away; nil if there is no such
	// thing.
	Fix func(*luks2.Tx) error `json:"-"`
}

// Patient is what is known of a volume and the machine.
type Patient struct {
	Device string // as messages name it
	Words  string // name it on a command line; empty: Device does
	Header *luks2.Header
	Types  tokens.Set
	Slots  []tokens.Slot
	// Examined is what became of tokens whose type can tell, by token.
	Examined map[int]tokens.Examination
	// Unexamined says why nothing could be told of a type's tokens, by name.
	Unexamined map[string]error
	// Memory is what the machine has in all, bytes; 0 if it is not known.
	Memory uint64
	// Boot is nil for a volume that this machine does not attach at boot, such as an
	// image file.
	Boot *Boot
}

// Boot is what attaches the volume when the machine starts.
type Boot struct {
	// Crypttab is the file as it was read; nil if there is none.
	Crypttab *crypttab.File
	// Grammar has the options.
	Grammar crypttab.Grammar
	// Lint are the findings about the volume's line.
	Lint []crypttab.Finding
	// Devices are the names of the volume's device, and the UUID of its header.
	UUID    string
	Devices []string
	// HeaderFile is the header device of a volume with a detached one, "" for others.
	HeaderFile string
	// Set is the command that gives the volume's line an option, which follows it;
	// empty where none does, as with a detached header.
	Set string
	// Initrd is what is wrong with the image that the machine starts with.
	Initrd []Finding
	// Next are the boots to come, as far as they can be told.
	Next []NextBoot
	// NextErr is why nothing can be told of them although it should be.
	NextErr error
}

// check is one question.
type check func(*Patient) []Finding

// checks are in the order in which findings of one severity are printed.
var checks = []check{
	(*Patient).tokensNow, (*Patient).unexamined, (*Patient).altered, (*Patient).pointless, (*Patient).spare, (*Patient).nobody, (*Patient).boot,
	(*Patient).waysIn, (*Patient).costs, (*Patient).weak, (*Patient).header, (*Patient).space, (*Patient).orphans,
}

// Examine asks every question. The gravest findings come first.
func Examine(p *Patient) []Finding {
	list := []Finding{}
	for _, c := range checks {
		list = append(list, c(p)...)
	}
	slices.SortStableFunc(list, func(a, b Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return list
}

// Offline asks those questions about keyslots that need no device and are answered by
// none of [tokens.Slot]'s words: what a key costs on this machine, what is weak.
func Offline(p *Patient) []Finding { return append(p.costs(), p.weak()...) }

// Worst is the gravest severity of a list, Note for an empty one.
func Worst(list []Finding) Severity {
	worst := Note
	for _, f := range list {
		worst = max(worst, f.Severity)
	}
	return worst
}

// of is a finding about a keyslot.
func of(s *tokens.Slot, word string, severity Severity, text, command string) Finding {
	slot := s.ID
	return Finding{Check: word, Severity: severity, Slot: &slot, About: s.String(), Text: text, Command: command}
}

// command is a command of cryptenroll for the volume.
func (p *Patient) command(words string) string { return "cryptenroll " + words + " " + p.words() }

// words name the volume on a command line.
func (p *Patient) words() string { return cmp.Or(p.Words, tokens.ShellWord(p.Device)) }
