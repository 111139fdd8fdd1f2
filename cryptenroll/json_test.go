package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"luksmith/internal/test/luks2test"
	"luksmith/tokens/all"
)

// jsonCall is a call of one verb that succeeds on a volume with a passphrase, and the
// members of the document that it prints. "VOLUME" and "FILE" are replaced. What a verb
// without words here prints is that of a volume alone. ready makes what such a call
// needs to succeed; nil where a volume is enough.
type jsonCall struct {
	words, members string
	ready          func(t *testing.T, words []string) *exec.Cmd
}

var jsonCalls = map[string][]jsonCall{
	"cryptenroll": {
		{"VOLUME", "device uuid keyslots", nil}, {"--recovery-key VOLUME", "uuid enrolled recovery_key wiped", nil}, {"--password VOLUME", "uuid enrolled wiped", nil},
		{"--dry-run --password VOLUME", "uuid enrol wipe warnings", nil},
		{"--wipe-slot=tpm2 VOLUME", "uuid wiped", nil}, {"--list-devices", "", nil}, {"--tpm2-device=list", "", nil}, {"--fido2-device=list", "", nil}, {"--pkcs11-token-uri=list", "", nil}, {"--version", "version", nil},
	},
	"cryptenroll list":    {{"VOLUME", "device uuid keyslots", nil}},
	"cryptenroll test":    {{"VOLUME", "uuid opens results", nil}, {"--all VOLUME", "uuid opens results", nil}},
	"cryptenroll doctor":  {{"VOLUME", "findings", nil}},
	"cryptenroll predict": {{"", "entries", nil}, {"--tpm2-device=TPM", "running entries", onMachine}},
	"cryptenroll ensure":  {{"--check --spec=FILE VOLUME", "volumes", nil}},
	"cryptenroll label":   {{"VOLUME 0 x", "slot label", nil}},
	"cryptenroll backup":  {{"VOLUME FILE.copy", "backup", nil}},
	"cryptenroll reseal": {
		{"VOLUME", "enrolled", nil}, {"--tpm2-device=TPM VOLUME", "device uuid opened_by enrolled wiped", withChip},
		{"--if-needed --tpm2-device=TPM VOLUME", "device uuid opened_by enrolled wiped", withChip},
		{"--dry-run --tpm2-device=TPM VOLUME", "device uuid enrol wipe warnings", withChip},
	},
	"cryptenroll recovery rotate": {
		{"VOLUME", "enrolled", nil}, {"--recovery-escrow=AGE VOLUME", "device uuid opened_by enrolled escrow wiped", withRecoveryKey},
		{"--dry-run --recovery-escrow=AGE VOLUME", "device uuid enrol wipe warnings", withRecoveryKey},
	},
	"cryptenroll recovery check": {{"VOLUME", "opens", nil}},
	"cryptenroll follow": {
		{"VOLUME", "volumes", nil}, {"--tpm2-device=TPM --esp-path=/efi VOLUME", "changed volumes", onMachine},
		{"--dry-run --tpm2-device=TPM --esp-path=/efi VOLUME", "changed dry_run volumes", onMachine},
	},
	"cryptenroll policy verify": {{"VOLUME", "entries", nil}, {"--tpm2-device=TPM --tpm2-signature=SIGNATURES VOLUME", "device uuid path entries", withChip}},
	"cryptenroll pkcs11-upgrade": {
		{"VOLUME", "upgraded", nil}, {"--compat=262 VOLUME", "device uuid upgraded", withCard}, {"--dry-run --compat=262 VOLUME", "device uuid upgraded", withCard},
	},
}

// TestEveryVerbSpeaksJSON runs every command that there is with --json, on a volume and
// on a path where nothing is: standard output is one document each time. It has the
// members of the table, or the failure with the status of the command.
func TestEveryVerbSpeaksJSON(t *testing.T) {
	t.Parallel()
	for _, c := range commandsOf(newApp("cryptenroll", all.New).rootCommand(nil)) {
		path := c.CommandPath()
		if len(jsonCalls[path]) == 0 {
			t.Errorf("%s: no call of it in the table", path)
		}
		for _, call := range jsonCalls[path] {
			t.Run(path+" "+call.words, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				v := luks2test.New(t)
				file := filepath.Join(dir, "file")
				if err := os.WriteFile(file, []byte(`{"version": 1, "keyslots": []}`), 0o600); err != nil {
					t.Fatal(err)
				}
				args := strings.Fields(strings.TrimPrefix(path, "cryptenroll") + " " + call.words + " --json=short")
				if call.ready != nil {
					succeeds(t, call.ready(t, args), strings.Fields(call.members))
					return
				}
				speaks(t, replaced(args, v.Path, file), strings.Fields(call.members))
				speaks(t, replaced(args, filepath.Join(dir, "absent.img"), file), nil)
				speaks(t, replaced(append(args, "--nosuch"), v.Path, file), nil)
				speaks(t, replaced(append(args, "--unlock-key-file=FILE"), v.Path, file), nil) // which opens nothing
			})
		}
	}
}

// commandsOf are the commands that do something: those without others below them.
func commandsOf(c *cobra.Command) (list []*cobra.Command) {
	if c.HasParent() && c.HasSubCommands() {
		for _, below := range c.Commands() {
			list = append(list, commandsOf(below)...)
		}
		return list
	}
	list = append(list, c)
	for _, below := range c.Commands() {
		if below.IsAvailableCommand() && below.Name() != "help" && below.Name() != "completion" {
			list = append(list, commandsOf(below)...)
		}
	}
	return list
}

func replaced(args []string, volume, file string) []string {
	list := slices.Clone(args)
	for i := range list {
		list[i] = strings.NewReplacer("VOLUME", volume, "FILE", file).Replace(list[i])
	}
	return list
}

// verdicts are statuses with which a command has done its work: what it found is not as
// it should be.
var verdicts = []int{0, 3, 12, 13}

// speaks runs a call and reads what it prints as one document. members are those of its
// success, nil if it has to fail.
func speaks(t *testing.T, args, members []string) {
	t.Helper()
	r := runCommand(t, alone(t, []string{"PASSWORD=hunter2", "NEWPASSWORD=hunter3"}, args...))
	var any json.RawMessage
	if err := json.Unmarshal([]byte(r.stdout), &any); err != nil {
		t.Errorf("%q: status %d, %v in %q; %s", args, r.status, err, r.stdout, r.stderr)
		return
	}
	var document struct {
		Error *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	_ = json.Unmarshal(any, &document) // a list has none
	if slices.Contains(verdicts, r.status) {
		for _, m := range members {
			if !strings.Contains(r.stdout, `"`+m+`":`) {
				t.Errorf("%q: no member %q in %s", args, m, r.stdout)
			}
		}
		return
	}
	if document.Error == nil || document.Error.Code != r.status || document.Error.Message == "" {
		t.Errorf("%q: status %d, document %s", args, r.status, r.stdout)
	}
}
