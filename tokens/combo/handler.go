package combo

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

// Handler enrols and unlocks with several factors together.
type Handler struct {
	// Types are the handlers that serve as factors, with their options. Types
	// that cannot unlock are left aside.
	Types tokens.Set
	// AllOf are the names of factors that open the volume together, in order:
	// handlers' names or "passphrase".
	AllOf []string
	// Of are the same where Need of them are enough. Only one of both is set.
	Of   []string
	Need int

	interrupted *gathering // what came together before a wrong passphrase
}

var (
	_ tokens.Enroller     = (*Handler)(nil)
	_ tokens.Unlocker     = (*Handler)(nil)
	_ tokens.Watcher      = (*Handler)(nil)
	_ tokens.DeviceWaiter = (*Handler)(nil)
	_ tokens.Combiner     = (*Handler)(nil)
)

// New returns a handler whose factors are those of the given types that can unlock.
func New(types tokens.Set) *Handler { return &Handler{Types: slices.Clone(types)} }

// Type is "luksmith-combo".
func (*Handler) Type() string { return Type }

// Name is "combo".
func (*Handler) Name() string { return typeName }

// typeName is what people call tokens of this type.
const typeName = "combo"

// Options are --all-of=, --any= with --of=, and their word in crypttab.
func (h *Handler) Options() []tokens.Option {
	return []tokens.Option{
		{Name: "all-of", Arg: "FACTORS", Help: "all of these together: tpm2, fido2, pkcs11, passphrase", Place: tokens.Enrolling,
			Action: tokens.SelectEnroll, Set: h.setAll},
		{Name: "any", Arg: "K", Help: "any K of the factors of --of=", Place: tokens.Enrolling, Set: h.setNeed},
		{Name: "of", Arg: "FACTORS", Help: "the factors for --any=", Place: tokens.Enrolling, Action: tokens.SelectEnroll, Set: h.setOf},
		{Name: "unlock-combo", Arg: "WHICH", Help: "the factors of an enrolled combination", Place: tokens.Unlocking,
			Action: tokens.SelectUnlock, Values: []string{"auto"}, Set: onlyAuto},
		{Name: "luksmith-combo", Arg: "WHICH", Help: "the factors of an enrolled combination", Place: tokens.Crypttab,
			Action: tokens.SelectUnlock, Values: []string{"auto"}, Set: onlyAuto},
	}
}

func onlyAuto(value string) error {
	if value != "auto" {
		return fmt.Errorf("%q: want auto", value)
	}
	return nil
}

func (h *Handler) setAll(value string) error {
	if h.Of != nil {
		return errors.New("--of= names the factors already")
	}
	return h.setFactors(&h.AllOf, value)
}

func (h *Handler) setOf(value string) error {
	if h.AllOf != nil {
		return errors.New("--all-of= names the factors already")
	}
	return h.setFactors(&h.Of, value)
}

func (h *Handler) setFactors(dst *[]string, value string) error {
	list := strings.Split(value, ",")
	if err := h.checkFactors(list); err != nil {
		return err
	}
	*dst = list
	return nil
}

// factors are the names of all that are to be enrolled.
func (h *Handler) factors() []string {
	if h.AllOf != nil {
		return h.AllOf
	}
	return h.Of
}

// checkFactors refuses lists that make no combination.
func (h *Handler) checkFactors(list []string) error {
	if len(list) < 2 || len(list) > maxFactors {
		return fmt.Errorf("want 2 to %d factors, separated by commas", maxFactors)
	}
	for i, name := range list {
		if name != passphraseFactor && h.unlocker(name) == nil {
			return fmt.Errorf("%q: want %s", name, strings.Join(h.names(), ", "))
		}
		if name == passphraseFactor && slices.Contains(list[:i], name) {
			return errors.New("one passphrase is enough")
		}
	}
	return nil
}

// EnrollsWith implements [tokens.Combiner]: the factors that are to be enrolled.
func (h *Handler) EnrollsWith(name string) bool { return slices.Contains(h.factors(), name) }

// UnlocksWith implements [tokens.Combiner].
func (h *Handler) UnlocksWith(name string) bool { return h.unlocker(name) != nil }

// names are the words for factors.
func (h *Handler) names() []string {
	var list []string
	for _, t := range h.Types {
		if h.unlocker(t.Name()) != nil {
			list = append(list, t.Name())
		}
	}
	return append(list, passphraseFactor)
}

// unlocker is the handler of that name, if it can be a factor.
func (h *Handler) unlocker(name string) tokens.Unlocker {
	u, _ := h.Types.ByName(name).(tokens.Unlocker)
	return u
}

func (h *Handler) setNeed(value string) error {
	n, err := strconv.Atoi(value)
	if err != nil || n < 2 || n > maxFactors {
		return fmt.Errorf("%q: want a number from 2 to %d", value, maxFactors)
	}
	h.Need = n
	return nil
}

// Subsystems are those of all types that can be factors.
func (h *Handler) Subsystems() []string {
	var list []string
	for _, t := range h.Types {
		if w, ok := t.(tokens.Watcher); ok {
			list = append(list, w.Subsystems()...)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// detail is the JSON form of a token for list --json.
type detail struct {
	Need    int            `json:"need"`
	Of      int            `json:"of"`
	Factors []factorDetail `json:"factors"`
}

type factorDetail struct {
	Factor string `json:"factor"`
	Detail any    `json:"detail,omitempty"`
}

// Describe reads a token and those of its factors.
func (h *Handler) Describe(t luks2.Token) (tokens.Description, error) {
	tok, err := readToken(t.Raw)
	if err != nil {
		return tokens.Description{}, err
	}
	d := tokens.Description{Label: tokens.Label(t.Raw)}
	v := detail{Need: tok.need, Of: tok.of}
	for i := range tok.factors {
		one, err := h.describeFactor(&tok.factors[i])
		if err != nil {
			return tokens.Description{}, &tokens.FieldError{Field: "combo-factors", Reason: fmt.Sprintf("factor %d: %v", i, err)}
		}
		d.Requires = append(d.Requires, one.Requires...)
		d.Cost += one.Cost
		d.Unusable = firstText(d.Unusable, one.Unusable)
		v.Factors = append(v.Factors, factorDetail{tok.factors[i].name, one.Detail})
	}
	d.Detail = v
	return d, nil
}

// describeFactor is what one factor needs.
func (h *Handler) describeFactor(f *factor) (tokens.Description, error) {
	if f.name == passphraseFactor {
		return tokens.Description{Requires: []string{"passphrase"}, Cost: 20}, nil
	}
	u := h.unlocker(f.name)
	if u == nil {
		return tokens.Description{Unusable: fmt.Sprintf("made by a newer luksmith: unknown factor %.40q", f.name)}, nil
	}
	d, err := u.Describe(f.token(u))
	if len(d.Requires) == 0 {
		d.Requires = []string{f.name}
	}
	return d, err
}

// token is the factor as if it stood in the header. It has no number of its own.
func (f *factor) token(u tokens.Unlocker) luks2.Token {
	return luks2.Token{ID: -1, Type: u.Type(), Raw: slices.Clone(f.raw)}
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
