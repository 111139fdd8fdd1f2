package recovery

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Type is the type of the token: systemd 262 src/cryptenroll/cryptenroll-recovery.c.
const Type = "systemd-recovery"

// Handler enrols recovery keys. The zero value generates one.
type Handler struct {
	// KeyFile is a file with a key made elsewhere, to be enrolled instead of a
	// new one; "" generates.
	KeyFile string
}

var _ tokens.Enroller = (*Handler)(nil)

// Type is "systemd-recovery".
func (*Handler) Type() string { return Type }

// Name is "recovery".
func (*Handler) Name() string { return "recovery" }

// Options are --recovery-key and --recovery-key-file=. What happens to the key
// once it is enrolled (sheet, confirmation) are options of the command.
func (h *Handler) Options() []tokens.Option {
	return []tokens.Option{
		{Name: "recovery-key", Help: "enrol a new recovery key and print it", Place: tokens.Enrolling, Action: tokens.SelectEnroll,
			Since: 248, Set: tokens.SetSwitch(new(bool))}, // what it selects is all that it says
		{Name: "recovery-key-file", Arg: "FILE", Help: "enrol the recovery key in FILE instead of a new one", Place: tokens.Enrolling,
			Action: tokens.SelectEnroll, Set: tokens.SetText(&h.KeyFile)},
	}
}

// detail is the JSON form of a token for list --json.
type detail struct {
	Created string `json:"created,omitempty"` // RFC 3339
}

// Describe reads a token, which has no members of its own.
func (*Handler) Describe(t luks2.Token) (tokens.Description, error) {
	if _, err := tokens.Members(t.Raw); err != nil {
		return tokens.Description{}, err
	}
	d := tokens.Description{Label: tokens.Label(t.Raw), Requires: requires(), Cost: 30}
	var extra tokens.Extra
	// An error is no reason to refuse: nothing in there is needed.
	_ = tokens.ReadExtra(t.Raw, &extra)
	if at, err := time.Parse(time.RFC3339, extra.Created); err == nil {
		d.Detail = detail{at.UTC().Format(time.RFC3339)}
	} else {
		d.Detail = detail{}
	}
	return d, nil
}

func requires() []string { return []string{"recovery key"} }

// Plan names the source of the key. A key file that is a regular file is read and
// checked, a pipe can be read only once and is left alone.
func (h *Handler) Plan(*tokens.EnrollRequest) (string, error) {
	if h.KeyFile == "" {
		return "recovery key, 256 bits", nil
	}
	if info, err := os.Stat(h.KeyFile); err != nil || info.Mode().IsRegular() {
		key, _, err := readKeyFile(context.Background(), h.KeyFile)
		if err != nil {
			return "", err
		}
		key.Wipe()
	}
	return "recovery key from " + h.KeyFile, nil
}

// Enroll generates a key, or reads the one in the key file, and makes its token.
// Nobody is asked and nothing is shown: see the package comment for what the
// caller does with Enrollment.Passphrase, which is the key.
func (h *Handler) Enroll(ctx context.Context, req *tokens.EnrollRequest, _ tokens.UI) (*tokens.Enrollment, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	key, notes, err := h.key(ctx)
	if err != nil {
		return nil, err
	}
	token, err := json.Marshal(struct {
		Type     string       `json:"type"`
		Keyslots []string     `json:"keyslots"`
		Extra    tokens.Extra `json:"luksmith"`
	}{Type, []string{}, tokens.NewExtra(req.Label, "")})
	if err != nil {
		key.Wipe()
		return nil, fmt.Errorf("making the token: %w", err)
	}
	return &tokens.Enrollment{Passphrase: key, KDF: luks2.MinimalKDF, Token: token, Proven: true, Label: req.Label,
		Requires: requires(), Notes: notes}, nil
}

func (h *Handler) key(ctx context.Context) (key secret.Secret, notes []string, err error) {
	if h.KeyFile == "" {
		return Generate(), nil, nil
	}
	key, shared, err := readKeyFile(ctx, h.KeyFile)
	if shared {
		notes = append(notes, fmt.Sprintf("Other users may read the recovery key in %s.", h.KeyFile))
	}
	return key, notes, err
}
