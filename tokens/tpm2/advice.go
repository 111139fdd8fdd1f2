package tpm2

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// volatilePCRs change with ordinary updates; docs/tpm2.md explains each.
var volatilePCRs = [chip.PCRCount]string{
	0: "a firmware update", 1: "a change in the firmware setup or of the hardware", 2: "an update of a plug-in card", 3: "a change of a plug-in card",
	4: "an update of the boot loader or kernel", 5: "a change of the partition table or of the boot loader's settings", 8: "a change of the boot loader's commands",
	9: "an update of kernel or initrd", 10: "every file that is measured at run time", 11: "an update of the kernel image",
	12: "a change of the kernel's command line", 13: "a change of a system extension", 14: "a change of the machine owner keys",
}

// runtimePCR is measured into while the system runs: its values cannot be foreseen.
const runtimePCR = 10

// note is something that the user should know.
type note struct {
	weight noteWeight
	text   string
}

// noteWeight orders notes: what makes a key useless or unsafe comes first.
type noteWeight int

const (
	noteEmpty    noteWeight = iota // a PCR that protects nothing
	noteOpen                       // anybody at the machine can open it
	noteGuess                      // a PIN that can be guessed
	noteLocked                     // a key that does not open at times
	noteUnproven                   // what stays, or could not be tested
	noteUpkeep                     // what keeping it alive takes
	noteInfo
)

func (s *settings) note(w noteWeight, format string, args ...any) {
	s.notes = append(s.notes, note{w, fmt.Sprintf(format, args...)})
}

// texts are the notes, the weightiest first.
func (s *settings) texts() []string {
	slices.SortStableFunc(s.notes, func(a, b note) int { return cmp.Compare(a.weight, b.weight) })
	var list []string
	for _, n := range s.notes {
		if s.notes[0].weight == noteEmpty && strings.HasPrefix(n.text, openToSecureBoot) {
			continue // nothing protects it, as was said
		}
		list = append(list, n.text)
	}
	return list
}

// warn adds notes about weaknesses and costs of the choice.
func (s *settings) warn() {
	s.warnOpen()
	s.warnUpkeep()
	if s.pcrs.Bank == chip.BankSHA1 {
		s.note(noteOpen, "Bank sha1 is weak: values for it can be forged.")
	}
	switch {
	case s.compat >= sinceSRK:
	case s.pin == PINNone:
		s.note(noteLocked, "Made for systemd %d: it will not open while the TPM is locked, by wrong PINs or by power cuts (--compat=254 avoids that, if no older systemd reads it).", s.compat)
	default:
		s.note(noteGuess, "Made for systemd %d: a fake TPM can guess this PIN off line. --compat=254 avoids that, and so does luksmith-tpm2-srk= in crypttab, if cryptsetup-unit unlocks.", s.compat)
	}
	if s.pin == PINDirect && s.compat < sinceSalt {
		s.note(noteGuess, "For systemd %d the PIN is used without a salt; --compat=253 salts it.", s.compat)
	}
}

// warnOpen says who can open the key besides the right person.
func (s *settings) warnOpen() {
	if s.pin != PINNone || s.key != nil || s.pcrlock != nil || s.req.Factor {
		return
	}
	if text := openTo(s.pcrs.Set); text != "" {
		add := "--tpm2-with-pin=yes"
		if s.pcrs.Set == 0 {
			add = "--tpm2-pcrs=7 " + add
		}
		s.note(noteOpen, "%s Add %s, or a signed policy.", text, add)
	}
}

const openToSecureBoot = "PCR 7 alone"

// openTo says who can open a key that is bound to nothing but PCRs, besides the right
// person; "" if there is no more to say than that.
func openTo(pcrs chip.PCRSet) string {
	switch pcrs &^ chip.PCRSetOf(policy.LatchPCR) {
	case 0:
		return "Any system that is started on this machine can open it."
	case chip.PCRSetOf(7):
		return openToSecureBoot + ": any system that Secure Boot accepts, an installer stick too, can open it."
	}
	return ""
}

// warnUpkeep says in one line when the values will be others.
func (s *settings) warnUpkeep() {
	var list []string
	for _, i := range s.pcrs.Set.List() {
		if why := volatilePCRs[i]; why != "" && s.pcrs.Values[i] == nil {
			list = append(list, fmt.Sprintf("PCR %d changes with %s", i, why))
		}
	}
	if len(list) == 0 {
		return
	}
	mend := "run cryptenroll reseal after that"
	switch {
	case s.req.Factor:
		mend = "enrol the combination anew after that"
	case s.pin == PINNone && !s.pcrs.Set.Has(runtimePCR):
		mend = "run cryptenroll follow before the reboot into it, or cryptenroll reseal after it"
	}
	s.note(noteUpkeep, "%s: %s.", strings.Join(list, ", "), mend)
}
