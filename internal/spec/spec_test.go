package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"luksmith/tokens"
	"luksmith/tokens/all"
)

var update = flag.Bool("update", false, "write docs/ensure.schema.json")

const published = "../../docs/ensure.schema.json"

// TestPublishedSchemaIsWhatIsRead: both come from one table; -update writes the file.
func TestPublishedSchemaIsWhatIsRead(t *testing.T) {
	t.Parallel()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetIndent("", " ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(Schema(all.New())); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(published, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(published)
	if err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("docs/ensure.schema.json is not what is read (%v): go test ./internal/spec -update", err)
	}
}

// validator judges by the published schema.
func validator(t *testing.T) *jsonschema.Schema {
	t.Helper()
	s, err := jsonschema.NewCompiler().Compile(published)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is a YAML text as a validator wants it.
func asJSON(t *testing.T, text []byte) any {
	t.Helper()
	var v any
	if err := yaml.Unmarshal(text, &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	v, err = jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

const whole = `
version: 1
devices: [/dev/sda2]
compat: 257
require: {needs: [tpm2, secure-boot], else: skip}
unlock:
  - key-file: /run/bootstrap
  - file: /run/paper
  - credential: install.key
  - keyring: installer
  - tpm2
  - fido2: /dev/hidraw3
  - headless
  - empty
  - ask
keyslots:
  - label: board
    type: tpm2
    device: auto
    pcrs: [7, 11]
    with-pin: yes
    pin-file: /run/pin
    rebind: never
    keep-old: boot
    latch: true
    pcrs-as-they-are: no
  - {label: paper, type: recovery, to: {file: "/root/{uuid}.key"}}
  - {label: safe, type: recovery, from: {file: /run/key}}
  - {label: admin, type: password, from: {file: /run/admin}, pbkdf: pbkdf2, priority: ignore}
  - {label: typed, type: password, from: ask}
  - {label: ring, type: fido2, with-client-pin: no, require: {needs: [fido2]}}
  - {label: card, type: pkcs11, token-uri: auto, no-verify: true}
  - {label: both, type: combo, all-of: [tpm2, passphrase], tpm2-pcrs: 7}
  - {label: kept, type: recovery, to: {escrow: [age1x], file: /root/kept.json}}
  - {label: printed, type: recovery, to: {sheet: /root/paper.pdf}}
  - {label: vault, type: recovery, to: {command: [/usr/bin/vault, put, "{uuid}"]}}
  - {label: shown, type: recovery, to: terminal}
absent:
  - label: bootstrap
  - {type: password, keep-until: boot}
  - opens-with: /run/bootstrap
unlisted: refuse
crypttab: {file: /etc/crypttab, options: [tpm2-device=auto, discard]}
initrd: [/usr/bin/make-initrd, --all]
`

func TestReadsAllThatTheManualHas(t *testing.T) {
	t.Parallel()
	s, err := Parse("f", []byte(whole), all.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := validator(t).Validate(asJSON(t, []byte(whole))); err != nil {
		t.Error(err)
	}
	options := func(k Keyslot) string {
		var words []string
		for _, o := range k.Options {
			words = append(words, o.Name+"="+o.Value)
		}
		return strings.Join(words, " ")
	}
	var got []string
	for _, w := range s.Unlock {
		got = append(got, strings.TrimSuffix(w.By+"="+w.Value, "="))
	}
	for _, k := range s.Keyslots {
		got = append(got, strings.TrimSpace(k.Label+" "+k.Type+" "+options(k)))
	}
	want := []string{"key-file=/run/bootstrap", "file=/run/paper", "credential=install.key", "keyring=installer", "tpm2", "fido2=/dev/hidraw3", "headless", "empty", "ask",
		"board tpm2 tpm2-device=auto tpm2-pcrs=7,11 tpm2-with-pin=yes tpm2-latch=", "paper recovery", "safe recovery", "admin password pbkdf=pbkdf2",
		"typed password", "ring fido2 fido2-with-client-pin=no", "card pkcs11 pkcs11-token-uri=auto pkcs11-no-verify=", "both combo all-of=tpm2,passphrase tpm2-pcrs=7",
		"kept recovery", "printed recovery", "vault recovery", "shown recovery"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	board, admin := s.Keyslots[0], s.Keyslots[3]
	if board.PINFile.Value != "/run/pin" || board.Rebind != Never || !board.KeepOld || s.Keyslots[1].To.File != "/root/{uuid}.key" ||
		admin.From.By != File || admin.Priority.Value != "ignore" || s.Keyslots[4].From.By != Ask || s.Keyslots[5].Require.Needs[0] != "fido2" ||
		!s.Require.Skip || s.Compat.Value != "257" || s.Unlisted != Refuse || s.Devices[0].Value != "/dev/sda2" {
		t.Errorf("%+v", s)
	}
	if a := s.Absent; a[0].Label != "bootstrap" || a[1].Type != "password" || !a[1].AfterBoot || a[2].OpensWith != "/run/bootstrap" {
		t.Errorf("%+v", a)
	}
	if k := s.Keyslots; k[8].To.Escrow[0].Value != "age1x" || k[8].To.File != "/root/kept.json" || k[9].To.Sheet != "/root/paper.pdf" ||
		k[10].To.Command[2] != "{uuid}" || !k[11].To.Terminal || s.Crypttab.Options[1] != "discard" || s.Crypttab.File != "/etc/crypttab" || s.Initrd[1] != "--all" {
		t.Errorf("%+v", s)
	}
	if at := board.Options[1].Place; at.Line != 20 || at.Field != "keyslots[0].pcrs" {
		t.Errorf("%+v", at)
	}
}

// TestUnderscoresAreHyphens: many YAML files have them.
func TestUnderscoresAreHyphens(t *testing.T) {
	t.Parallel()
	text := strings.NewReplacer("key-file:", "key_file:", "secure-boot", "secure_boot", "with-pin", "with_pin", "keep-old", "keep_old", "keep-until", "keep_until",
		"opens-with", "opens_with", "rebind: never", "rebind: when_not_opening", "pcrs-as-they-are", "pcrs_as_they_are").Replace(whole)
	s, err := Parse("f", []byte(text), all.New())
	if err != nil || s.Unlock[0].By != KeyFile || s.Require.Needs[1] != SecureBoot || s.Keyslots[0].Rebind != WhenClosed || !s.Absent[1].AfterBoot {
		t.Errorf("%v %+v", err, s)
	}
}

// TestJSONIsReadToo with tabs, as some programs indent it.
func TestJSONIsReadToo(t *testing.T) {
	t.Parallel()
	b, err := json.MarshalIndent(asJSON(t, []byte(whole)), "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse("f", b, all.New())
	if err != nil || len(s.Keyslots) != 12 || len(s.Unlock) != 9 {
		t.Errorf("%v %+v", err, s)
	}
}

// TestJSONsOwnEscapes are those that YAML writes otherwise, as encoders of JSON make
// them.
func TestJSONsOwnEscapes(t *testing.T) {
	t.Parallel()
	s, err := Parse("f", []byte(`{"version": 1, "devices": ["\/dev\/sda", "/dev/\ud83d\uDE00x", "/a\\/b\u002f\"\t"]}`), all.New())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range s.Devices {
		got = append(got, d.Value)
	}
	if d := cmp.Diff([]string{"/dev/sda", "/dev/😀x", "/a\\/b/\"\t"}, got); d != "" {
		t.Error(d)
	}
}

// wrong are specs and what is said of them. Those that begin with ~ are taken by the
// schema, which does not know everything.
var wrong = map[string]string{
	"~":                                    "f: it is empty",
	"~a: [":                                "f:1: this is neither YAML nor JSON: did not find expected node content",
	"~a: b\n c: d":                         "f:2: this is neither YAML nor JSON: mapping values are not allowed in this context",
	"~version: 1\n---\nversion: 1":         "f:2: a second document begins; a spec is one",
	"- a":                                  "f:1: want fields such as $schema",
	"version: 2":                           "f:1: version: version \"2\" is not known, only 1",
	"unlisted: keep":                       "f:1: the field version is missing",
	"version: 1\nkeyslot: ":                "f:2: keyslot: unknown field; did you mean keyslots?",
	"~version: 1\nversion: 1":              "f:2: version: the field is there twice, first in line 1",
	"version: 1\nkeyslots: {}":             "f:2: keyslots: want a list",
	"version: 1\nkeyslots:\n - label: a":   "f:3: keyslots[0]: the field type is missing: one of password, tpm2, fido2, pkcs11, combo, recovery",
	"version: 1\nkeyslots:\n - type: tmp2": `f:3: keyslots[0].type: unknown word "tmp2"; did you mean tpm2?`,
	"version: 1\nkeyslots:\n - type: tpm2": "f:3: keyslots[0]: the field label is missing",
	"version: 1\nkeyslots:\n - type: tpm2\n   label: a\n   pcr: 7":                            "f:5: keyslots[0].pcr: unknown field; did you mean pcrs?",
	"version: 1\nkeyslots:\n - type: password\n   label: a\n   pcrs: 7":                       "f:5: keyslots[0].pcrs: unknown field; known are",
	"version: 1\nkeyslots:\n - {type: tpm2, label: a, pcrs: {}}":                              "f:3: keyslots[0].pcrs: want one value",
	"version: 1\nkeyslots:\n - {type: tpm2, label: a, pcrs: }":                                "f:3: keyslots[0].pcrs: the value is empty",
	"version: 1\nkeyslots:\n - {type: tpm2, label: a, latch: maybe}":                          `f:3: keyslots[0].latch: "maybe" is neither yes nor no`,
	"version: 1\nkeyslots:\n - {type: tpm2, label: a, rebind: nevr}":                          `f:3: keyslots[0].rebind: unknown word "nevr"; did you mean never?`,
	"~version: 1\nkeyslots:\n - {type: tpm2, label: \"a\\tb\"}":                               "f:3: keyslots[0].label: the label has the control character U+0009",
	"~version: 1\nkeyslots:\n - {type: tpm2, label: " + strings.Repeat("x", MaxLabel+1) + "}": "f:3: keyslots[0].label: the label has 48 bytes, at most 47 are allowed",
	"~version: 1\nkeyslots:\n - {type: tpm2, label: a}\n - {type: fido2, label: a}":           `f:4: keyslots[1]: the label "a" is there twice, first in line 3`,
	"version: 1\nkeyslots:\n - {type: password, label: a}":                                    "f:3: keyslots[0]: the field from is missing",
	"~version: 1\nkeyslots:\n - {type: password, label: a, from: {file: a}}":                  `f:3: keyslots[0].from.file: "a" is not an absolute path`,
	"version: 1\nkeyslots:\n - {type: password, label: a, from: {file: /a, key-file: /b}}":    "f:3: keyslots[0].from: want exactly one of file, key-file, credential",
	"version: 1\nkeyslots:\n - {type: password, label: a, from: file}":                        "f:3: keyslots[0].from: file needs a value: {file: …}",
	"~version: 1\nkeyslots:\n - {type: recovery, label: a}":                                   "f:3: keyslots[0]: a recovery key needs exactly one of from and to",
	"~version: 1\nkeyslots:\n - {type: combo, label: a, of: [tpm2, fido2]}":                   "f:3: keyslots[0]: any and of need each other",
	"version: 1\nunlock: [tpm]":                                                               `f:2: unlock[0]: unknown word "tpm"; did you mean tpm2?`,
	"~version: 1\nunlock: [{credential: ../x}]":                                               `f:2: unlock[0].credential: "../x" is not the name of a credential`,
	"~version: 1\nkeyslots: [{type: tpm2, label: a}]\nabsent: [{label: a}]":                   `f:3: absent[0]: the label "a" is wanted in line 2`,
	"~version: 1\nabsent: [{label: a, type: other}]":                                          "f:2: absent[0]: want exactly one of label, type, opens-with",
	"~version: 1\nabsent: [{label: a}]":                                                       "f:1: keyslots are to be wiped and none is wanted: list at least one that stays",
	"~version: 1\nunlisted: wipe":                                                             "f:1: keyslots are to be wiped and none is wanted",
	"version: 1\nrequire: {needs: [tpm]}":                                                     `f:2: require.needs[0]: unknown word "tpm"; did you mean tpm2?`,
	"~version: 1\nkeyslots:\n - {type: recovery, label: a, to: {escrow: [x]}}":                "f:3: keyslots[0].to: escrow goes with file",
	"~version: 1\nkeyslots:\n - {type: recovery, label: a, to: {file: /a, sheet: /b}}":        "f:3: keyslots[0].to: want exactly one of file, sheet, command, terminal",
	"version: 1\nkeyslots:\n - {type: recovery, label: a, to: screen}":                        `f:3: keyslots[0].to: unknown word "screen"; known are terminal`,
	"~version: 1\nkeyslots:\n - {type: recovery, label: a, to: {command: [vault]}}":           `f:3: keyslots[0].to.command[0]: "vault" is not the absolute path of a program`,
	"~version: 1\ninitrd: []":                                                                 "f:2: initrd: want a program and its arguments",
	"~version: 1\na_b: 1\nabsent: [{opens_with: /a, opens-with: /b}]":                         "f:2: a-b: unknown field",
	"~version: 1\nabsent: [{opens_with: /a, opens-with: /b}]":                                 "f:2: absent[0].opens-with: the field is there twice",
	"version: 1\ncrypttab: {file: /a}":                                                        "f:2: crypttab: the field options is missing",
	"version: 1\nrequire: {else: skip}":                                                       "f:2: require: the field needs is missing",
}

func TestMistakesAreNamedByLineAndField(t *testing.T) {
	t.Parallel()
	schema := validator(t)
	for text, want := range wrong {
		text, passes := strings.CutPrefix(text, "~")
		_, err := Parse("f", []byte(text), all.New())
		if err == nil || !strings.HasPrefix(err.Error(), want) || !errors.Is(err, tokens.ErrUsage) {
			t.Errorf("%q:\n got %v\nwant %s", text, err, want)
		}
		if !passes && schema.Validate(asJSON(t, []byte(text))) == nil {
			t.Errorf("%q: the schema takes it", text)
		}
	}
}

// TestOnlyOwnersWriteSpecs: whoever can edit one decides who opens the volume.
func TestOnlyOwnersWriteSpecs(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "spec.yaml")
	if err := os.WriteFile(path, []byte("version: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, all.New()); err != nil {
		t.Error(err)
	}
	if err := os.Chmod(path, 0o606); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, all.New()); err == nil || !strings.Contains(err.Error(), "everybody may write to it (mode 0606)") {
		t.Error(err)
	}
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxSpec+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(large, all.New()); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Error(err)
	}
}

// FuzzParse: no text ends the program, and errors of a text are about it.
func FuzzParse(f *testing.F) {
	f.Add(whole)
	for text := range wrong {
		f.Add(text)
	}
	f.Add(`{"version": 1, "devices": ["\/\ud83d\ude00\ud83d\\/"]}`)
	f.Add("version: 1\na: &a [*a]")
	f.Add("&a version: 1\nkeyslots: &b [*b, {<<: *b}]")
	types := all.New()
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Parse("f", []byte(text), types); err != nil && !errors.Is(err, tokens.ErrUsage) {
			t.Error(err)
		}
	})
}
