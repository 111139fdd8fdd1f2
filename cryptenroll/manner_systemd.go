package main

import (
	"cmp"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/version"
	"luksmith/luks2"
	"luksmith/tokens"
)

// systemdManner is that of systemd-cryptenroll: what scripts that were written for
// it call and read. docs/compatibility.md has a row for each difference that is left.
type systemdManner struct{ name string }

// systemdOptions are the long options of systemd-cryptenroll 262, in its order:
// abbreviations are of these, whatever further options there are here.
const systemdOptions = `help version no-pager list-devices wipe-slot
	unlock-key-file unlock-fido2-device unlock-tpm2-device unlock-empty unlock-headless
	password recovery-key pkcs11-token-uri fido2-device fido2-salt-file fido2-parameters-in-header
	fido2-credential-algorithm fido2-with-client-pin fido2-with-user-presence fido2-with-user-verification
	tpm2-device tpm2-device-key tpm2-seal-key-handle tpm2-pcrs tpm2-public-key tpm2-public-key-pcrs
	tpm2-public-key-policyref tpm2-signature tpm2-pcrlock tpm2-with-pin tpm2-argon2id-memory
	tpm2-argon2id-iterations tpm2-argon2id-parallelism tpm2-argon2id-iter-time
	firstboot prompt-suppress chrome mute-console`

// expand completes options as getopt_long does: an exact name wins, else the only
// one that begins so.
func (s systemdManner) expand(flags *pflag.FlagSet, args []string) ([]string, error) {
	out := slices.Clone(args)
	for i := 0; i < len(out); i++ {
		word, isOption := strings.CutPrefix(out[i], "--")
		if !isOption {
			continue
		}
		if word == "" {
			break // the rest are operands
		}
		name, value, hasValue := strings.Cut(word, "=")
		full, err := s.complete(name)
		if err != nil {
			return nil, err
		}
		if out[i] = "--" + full; hasValue {
			out[i] += "=" + value
		} else if f := flags.Lookup(full); f != nil && f.NoOptDefVal == "" {
			i++ // its value is the next word
		}
	}
	return out, nil
}

func (s systemdManner) complete(name string) (string, error) {
	var begin []string
	for o := range strings.FieldsSeq(systemdOptions) {
		if o == name {
			return name, nil
		}
		if strings.HasPrefix(o, name) {
			begin = append(begin, o)
		}
	}
	switch len(begin) {
	case 0:
		return name, nil // one of ours, or none
	case 1:
		return begin[0], nil
	}
	return "", tokens.Usagef("--%s is ambiguous; it could be --%s", name, strings.Join(begin, ", --"))
}

// verbs: a device may have any name.
func (systemdManner) verbs(*app, []string) []*cobra.Command { return nil }

// refuseAmbiguous: there are no commands.
func (systemdManner) refuseAmbiguous([]string) error { return nil }

func (systemdManner) refuseCommand(args []string) error {
	if len(args) > 1 {
		return usagef("one volume can be listed at a time, not %d", len(args))
	}
	return nil
}

func (systemdManner) explainsInJSON() bool { return false }

// takesImages: systemd-cryptenroll has no such option.
func (systemdManner) takesImages() bool { return false }

// version is the newest systemd whose tokens are known, as scripts compare it, and
// the features that they look for.
func (systemdManner) version() string {
	return fmt.Sprintf("systemd %d (luksmith %s)\n+TPM2 +FIDO2 +P11KIT +OPENSSL +LIBCRYPTSETUP +QRENCODE\n", newestSystemd, version.Version)
}

// prepare honours $SYSTEMD_LOG_LEVEL, with which scripts silence what they do not
// want to read.
func (systemdManner) prepare(m *cli.Messages) {
	m.Level = cli.ParseLevel(os.Getenv("SYSTEMD_LOG_LEVEL"))
}

func (systemdManner) mayOnlyList() bool { return true }

func (systemdManner) list(l *listing) error { return l.asSystemd() }

func (systemdManner) confirmsWipe() bool { return false }

// keyring: installers that enrol on several volumes are asked once.
func (systemdManner) keyring() askpass.CacheMode { return askpass.CacheYes }

// noDevices are systemd's sentences.
func (systemdManner) noDevices(kind, text string) string {
	return cmp.Or(map[string]string{"tpm2": "No suitable TPM2 devices found.", "fido2": "No FIDO2 devices found.", "pkcs11": "No suitable PKCS#11 tokens found."}[kind], text)
}

// question begins as installers wait for it.
func (systemdManner) question(p *tokens.Prompt) string {
	begin := map[string]string{"fido2-pin": "Please enter security token PIN", "tpm2-pin": "Please enter TPM2 PIN"}[p.Credential]
	switch {
	case begin == "":
		return p.Text
	case p.New:
		return begin
	}
	return begin + " (" + p.Text + ")"
}

func (systemdManner) advises() bool { return false }

func (systemdManner) noSuchSlot(string, int, []luks2.Keyslot) error { return nil }

func (systemdManner) nothingToWipe(m *cli.Messages, _ *plan, _ string) {
	m.Plain(cli.LevelNotice, "No slots to remove selected.")
}

// report prints what there is to know first, and the lines that scripts look for
// last and word for word.
func (systemdManner) report(r *reporter, out *outcome) error {
	if r.json.On() {
		return r.report(out)
	}
	if e := out.enrolled; e != nil {
		for _, note := range e.result.Notes {
			if e.result.Unchanged == nil { // else about a key that was not made
				r.msg.Warning(note)
			}
		}
		r.msg.Plain(cli.LevelInfo, "%s", enrolledLine(out.plan, e))
	}
	for _, slot := range out.inWipeOrder() {
		if slices.Contains(out.plan.missing, slot) {
			r.msg.Plain(cli.LevelWarning, "Failed to wipe non-existent slot %d, continuing.", slot)
			continue
		}
		r.msg.Plain(cli.LevelInfo, "Wiped slot %d.", slot)
	}
	r.tellCrypttab(out)
	if len(out.plan.missing) > 0 {
		return cli.ErrSaid
	}
	return nil
}

// enrolledLine is systemd's sentence about a new keyslot.
func enrolledLine(p *plan, e *enrolled) string {
	if e.result.Unchanged != nil {
		return "This PCR set is already enrolled, executing no operation."
	}
	what := "password"
	if h, ok := p.enroller.(tokens.Enroller); ok {
		what = systemdNoun(h.Name())
	}
	return "New " + what + " enrolled as key slot " + strconv.Itoa(e.slot) + "."
}

// systemdNoun is systemd's word for what it enrols.
func systemdNoun(kind string) string {
	if kind == "recovery" {
		return "recovery key"
	}
	return title(kind) + " token"
}

// inWipeOrder are the keyslots that were wiped or not there, the last first.
func (o *outcome) inWipeOrder() []int {
	list := slices.Clone(o.plan.missing)
	for _, s := range o.wiped {
		list = append(list, s.ID)
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list
}
