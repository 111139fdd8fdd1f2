package tokentest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// Toy is a token type whose device XORs a mask of eight bytes with a PIN of
// eight. The commands' tests put it into their sets of types, to see that a type is
// all there once it is in the set.
type Toy struct {
	// Device is the path of the device; there is one at "present".
	Device string
	// Touch asks for one.
	Touch bool

	fault  string // a rule of the suite that it breaks
	hidden bool   // an option that is no exported field, as the rule wants it
}

var (
	_ tokens.MultiEnroller = (*Toy)(nil)
	_ tokens.Unlocker      = (*Toy)(nil)
	_ tokens.Watcher       = (*Toy)(nil)
	_ tokens.DeviceLister  = (*Toy)(nil)
)

// Type is the type of its tokens.
func (h *Toy) Type() string {
	if h.fault == "type" {
		return "Toy Token"
	}
	return "test-toy"
}

// Name is "toy".
func (h *Toy) Name() string { return "toy" }

// Subsystems names a subsystem that no kernel has.
func (h *Toy) Subsystems() []string { return []string{"toys"} }

// Devices finds none.
func (h *Toy) Devices(context.Context) (*tokens.DeviceTable, error) {
	table := &tokens.DeviceTable{Columns: []string{"PATH", "VENDOR"}}
	if h.fault == "devices" {
		table.Rows = [][]string{{"/dev/toy0"}}
	}
	return table, nil
}

// Options has one of every kind.
func (h *Toy) Options() []tokens.Option {
	list := []tokens.Option{
		{Name: "toy-device", Arg: "PATH", Help: "path of the toy", Place: tokens.Enrolling, Action: tokens.SelectEnroll, List: true, Set: tokens.SetText(&h.Device)},
		{Name: "unlock-toy-device", Arg: "PATH", Help: "unlock with this toy", Place: tokens.Unlocking, Action: tokens.SelectUnlock, Set: tokens.SetText(&h.Device)},
		{Name: "toy-device", Arg: "PATH", Help: "path of the toy", Place: tokens.Crypttab, Action: tokens.SelectUnlock, Set: tokens.SetText(&h.Device)},
		{Name: "toy-touch", Arg: "BOOL", Help: "ask for a touch", Place: tokens.Enrolling, Values: []string{"yes", "no"}, Set: tokens.SetBool(&h.Touch)},
		{Name: "toy-always", Help: "always", Place: tokens.Unlocking, Set: tokens.SetSwitch(&h.Touch)},
	}
	switch h.fault {
	case "option twice":
		list[2].Place = everyPlace
	case "option in a private field":
		list[3].Set = tokens.SetBool(&h.hidden)
	case "option without a field":
		list[3].Set = tokens.SetBool(new(bool))
	case "option help":
		list[0].Help = "Path of the toy."
	case "option accepts rubbish":
		list[3].Set = func(string) error { return nil }
	case "option panics":
		list[3].Set = func(v string) error { h.Touch = v[3] == 'x'; return nil }
	case "option error":
		list[3].Set = func(v string) error { return errors.New("bad " + v) }
	case "option refuses its values":
		list[3].Values = []string{"maybe"}
	}
	return list
}

type toyToken struct {
	blob string
	mask []byte
	pin  bool
}

func (h *Toy) parse(raw json.RawMessage) (toyToken, error) {
	var tok toyToken
	m, err := tokens.Members(raw)
	if err != nil {
		return tok, err
	}
	if h.fault == "case" {
		var v struct {
			Blob string `json:"toy-blob"`
		}
		if err := json.Unmarshal(raw, &v); err != nil {
			return tok, &tokens.FieldError{Field: "toy-blob", Reason: "is wrong"}
		}
		return toyToken{v.Blob, []byte(v.Blob), true}, nil
	}
	if h.fault == "panic" {
		return toyToken{mask: m["toy-mask"][:8]}, nil
	}
	if err := tokens.NeedMember(m, "toy-blob", &tok.blob); err != nil {
		return tok, err
	}
	if err := tokens.NeedMember(m, "toy-mask", &tok.mask); err != nil {
		return tok, err
	}
	if _, err := tokens.Member(m, "toy-pin", &tok.pin); err != nil {
		if h.fault == "no field" {
			return tok, tokens.ErrMalformed
		}
		return tok, err
	}
	if len(tok.mask) != 8 && h.fault != "short mask" {
		return tok, &tokens.FieldError{Field: "toy-mask", Reason: fmt.Sprintf("has %d bytes, want 8", len(tok.mask))}
	}
	return tok, nil
}

// Describe reads a token.
func (h *Toy) Describe(t luks2.Token) (tokens.Description, error) {
	tok, err := h.parse(t.Raw)
	if err != nil {
		return tokens.Description{}, err
	}
	d := tokens.Description{Label: tokens.Label(t.Raw), Requires: []string{"PIN"}, Cost: 20, Detail: map[string]int{"blob_size": len(tok.blob)}}
	switch h.fault {
	case "sealed":
		d.Detail = tok.blob
	case "requires":
		d.Requires = []string{"toy " + tok.blob}
	case "needs extra":
		return d, tokens.ReadExtra(t.Raw, &tokens.Extra{})
	case "changes the token":
		t.Raw[0] = ' '
	case "label":
		d.Label = strings.Trim(d.Label, "\x00")
	}
	return d, nil
}

// Plan says what Enroll makes.
func (h *Toy) Plan(*tokens.EnrollRequest) (string, error) {
	if h.fault == "plan" {
		return "toy\n", nil
	}
	return "toy with PIN", nil
}

func (h *Toy) open(ctx context.Context) error {
	if err := ctx.Err(); err != nil && h.fault != "deaf" {
		return err
	}
	if h.Device != "present" && h.fault != "device" {
		return fmt.Errorf("%s: %w", h.Device, tokens.ErrNoDevice)
	}
	if h.fault == "child" {
		if err := exec.Command("sleep", "30").Start(); err != nil {
			return err
		}
	}
	if h.fault == "goroutine" {
		go time.Sleep(time.Minute)
	}
	return nil
}

// derive asks for the PIN and makes the passphrase.
func (h *Toy) derive(ctx context.Context, mask []byte, ui tokens.UI) (secret.Secret, error) {
	done := ui.Show("thinking")
	if h.fault != "show" {
		defer done()
	}
	switch h.fault {
	case "slow":
		time.Sleep(soon + 100*time.Millisecond)
	case "deaf":
		ctx = context.WithoutCancel(ctx)
	}
	pin, err := ui.Ask(ctx, tokens.Prompt{Text: "PIN of the toy", Credential: "toy-pin"})
	if err != nil {
		return secret.Secret{}, err
	}
	if h.fault != "pin" {
		defer pin.Wipe()
	}
	out := secret.New(16)
	for i := range out.Bytes() {
		out.Bytes()[i] = 'a' + (mask[i%len(mask)]^pin.Bytes()[i%pin.Len()])&15
	}
	return out, nil
}

// Enroll asks for the PIN and makes a token.
func (h *Toy) Enroll(ctx context.Context, req *tokens.EnrollRequest, ui tokens.UI) (*tokens.Enrollment, error) {
	if err := h.open(ctx); err != nil {
		return nil, err
	}
	mask := secret.Random(8)
	defer mask.Wipe()
	passphrase, err := h.derive(ctx, mask.Bytes(), ui)
	if err != nil {
		return nil, err
	}
	return h.enrollment(req, mask.Bytes(), passphrase)
}

func (h *Toy) enrollment(req *tokens.EnrollRequest, mask []byte, passphrase secret.Secret) (*tokens.Enrollment, error) {
	extra := tokens.NewExtra(req.Label, "toy")
	if h.fault == "extra" {
		extra.Device = strings.Repeat("x", maxExtra)
	}
	slots := []string{}
	if h.fault == "keyslots" {
		slots = append(slots, "0")
	}
	raw, err := json.Marshal(map[string]any{"type": h.Type(), "keyslots": slots, "toy-blob": "c2VhbGVk", "toy-mask": mask, "toy-pin": true, "luksmith": extra})
	kdf := luks2.MinimalKDF
	if h.fault == "kdf" {
		kdf.Iterations = 2000
	}
	return &tokens.Enrollment{Passphrase: passphrase, KDF: kdf, Token: raw, Proven: h.fault != "proof", Label: req.Label, Requires: []string{"PIN"},
		Crypttab: []string{"toy-device=auto"}}, err
}

// EnrollAll makes a token for each volume with one PIN.
func (h *Toy) EnrollAll(ctx context.Context, reqs []*tokens.EnrollRequest, ui tokens.UI) ([]*tokens.Enrollment, error) {
	mask := make([]byte, 8)
	var list []*tokens.Enrollment
	key, err := h.derive(ctx, mask, ui)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	for i, req := range reqs {
		passphrase := key.Clone()
		if h.fault != "same passphrase" {
			passphrase.Bytes()[0] = byte('A' + i)
		}
		e, err := h.enrollment(req, mask, passphrase)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

// Unlock asks for the PIN of each token.
func (h *Toy) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	if err := h.open(ctx); err != nil {
		return nil, err
	}
	errs := []error{fmt.Errorf("no token: %w", tokens.ErrWrongKey)}
	for _, t := range req.Tokens {
		got, err := h.unlockOne(ctx, req, t, ui)
		if err == nil {
			return got, nil
		}
		errs = append(errs, &tokens.TokenError{ID: t.ID, Type: t.Type, Err: err})
		if h.fault == "stops" {
			break
		}
	}
	return nil, errors.Join(errs[min(1, len(errs)-1):]...)
}

func (h *Toy) unlockOne(ctx context.Context, req *tokens.UnlockRequest, t luks2.Token, ui tokens.UI) (*tokens.Unlocked, error) {
	tok, err := h.parse(t.Raw)
	if err != nil {
		return nil, err
	}
	passphrase, err := h.derive(ctx, tok.mask, ui)
	if err != nil {
		return nil, err
	}
	tries := 1
	if h.fault == "twice" {
		tries = 2
	}
	for range tries {
		err = req.Check(ctx, t, passphrase)
	}
	if err != nil {
		if h.fault != "passphrase" {
			passphrase.Wipe()
		}
		return nil, err
	}
	if h.fault == "wrong passphrase" {
		passphrase.Bytes()[0] ^= 1
	}
	return &tokens.Unlocked{Token: t, Passphrase: passphrase}, nil
}
