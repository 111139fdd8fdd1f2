package main

import (
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/pflag"

	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// addTokenFlags defines the options of one place that a token type brings.
func (a *app) addTokenFlags(f *pflag.FlagSet, known tokenFlags, place tokens.Place, h tokens.Handler) {
	for _, opt := range h.Options() {
		if opt.Place&place != 0 {
			known.add(f, &tokenFlag{app: a, handler: h, option: opt})
		}
	}
}

// handlerOf is the handler of a set that has a type of its own, nil without one.
func handlerOf[H tokens.Handler](set tokens.Set) (found H) {
	for _, h := range set {
		if h, ok := h.(H); ok {
			return h
		}
	}
	return found
}

// tpm2 is the handler of the TPM2 token that is to be made.
func (a *app) tpm2() *tpm2.Handler { return handlerOf[*tpm2.Handler](a.enrolling) }

// parameters are the options of an enroller with these names. They set parameters
// and ask for no enrolment.
func parameters(h tokens.Handler, names ...string) (list []tokens.Option) {
	for _, opt := range h.Options() {
		if opt.Place&tokens.Enrolling != 0 && slices.Contains(names, opt.Name) {
			opt.Action = tokens.Parameter
			list = append(list, opt)
		}
	}
	return list
}

// addTPM2Parameters defines options of the TPM2 type for a command that does not
// enrol by them. device is the help text of --tpm2-device=.
func (a *app) addTPM2Parameters(f *pflag.FlagSet, known tokenFlags, device string, names ...string) {
	for _, opt := range parameters(a.tpm2(), append(names, "tpm2-device")...) {
		if opt.Name == "tpm2-device" {
			opt.Help = device + ": auto, list, a path or swtpm:path=SOCKET"
		}
		known.add(f, &tokenFlag{app: a, handler: a.tpm2(), option: opt})
	}
}

// sameTPM makes --tpm2-device= name the TPM to unlock with as well, unless
// --unlock-tpm2-device= names another.
func (a *app) sameTPM(known tokenFlags) {
	h := handlerOf[*tpm2.Handler](a.unlocking)
	for _, opt := range parameters(h, "tpm2-device") {
		known[opt.Name].also = &tokenFlag{app: a, handler: h, option: opt}
	}
}

// tokenFlags are the options of token types that one command has, by name.
type tokenFlags map[string]*tokenFlag

// add defines an option. One that has a meaning both for enrolling and for
// unlocking, such as --tpm2-signature=, is defined once and told to both handlers.
func (known tokenFlags) add(f *pflag.FlagSet, t *tokenFlag) {
	if first := known[t.option.Name]; first != nil {
		first.also = t
		return
	}
	known[t.option.Name] = t
	flag := f.VarPF(t, t.option.Name, "", t.option.Help)
	if t.option.Arg == "" {
		flag.NoOptDefVal = switchOn
	}
}

// switchOn is what pflag passes for an option without value, as for its own bool
// flags.
const switchOn = "true"

// tokenFlag makes a pflag.Value of a token type's option.
type tokenFlag struct {
	app     *app
	handler tokens.Handler
	option  tokens.Option
	also    *tokenFlag // the same option in another place
	value   string
}

func (t *tokenFlag) String() string { return t.value }

// Type is the placeholder in the help text.
func (t *tokenFlag) Type() string {
	if t.option.Arg == "" {
		return "bool"
	}
	return t.option.Arg
}

func (t *tokenFlag) Set(value string) error {
	o := &t.app.options
	if t.option.Arg == "" && value == switchOn {
		value = ""
	}
	if t.option.List && value == "list" {
		lister, ok := t.handler.(tokens.DeviceLister)
		if !ok {
			return errors.New("nothing to list")
		}
		o.listDevicesOf = lister
		return nil
	}
	if err := t.option.Set(value); err != nil {
		return err
	}
	t.value = value
	if t.also != nil {
		if err := t.also.Set(value); err != nil {
			return err
		}
	}
	switch t.option.Action {
	case tokens.SelectEnroll:
		return t.selectEnroll()
	case tokens.SelectUnlock:
		return t.selectUnlock()
	}
	return nil
}

func (t *tokenFlag) selectEnroll() error {
	o := &t.app.options
	e, ok := t.handler.(tokens.Enroller)
	if !ok {
		return fmt.Errorf("%s tokens cannot be enrolled", t.handler.Name())
	}
	if !slices.Contains(o.enrollers, e) {
		o.enrollers = append(o.enrollers, e)
	}
	return nil
}

// choose decides between the types whose options were given.
func (o *options) choose() {
	var enroll, unlock error
	o.enrollWith, enroll = o.chooseEnroller()
	o.unlock.with, unlock = o.chooseUnlocker()
	o.conflictError = errors.Join(enroll, unlock)
}

// chooseEnroller decides between the enrollers whose options were given.
func (o *options) chooseEnroller() (tokens.Enroller, error) {
	list := withoutFactors(o.enrollers, tokens.Combiner.EnrollsWith)
	if len(list) > 1 {
		return nil, usagef("one call enrols one thing: choose %s or %s", selector(list[0]), selector(list[1]))
	}
	return first(list), nil
}

// chooseUnlocker decides between the unlockers whose options were given.
func (o *options) chooseUnlocker() (tokens.Unlocker, error) {
	list := withoutFactors(o.unlockers, tokens.Combiner.UnlocksWith)
	if len(list) > 1 {
		return nil, usagef("%s and %s are two ways to unlock: choose one", list[0].Name(), list[1].Name())
	}
	return first(list), nil
}

// selector is the option that asks for the enrolment of a type.
func selector(h tokens.Handler) string {
	for _, opt := range h.Options() {
		if opt.Place&tokens.Enrolling == 0 || opt.Action != tokens.SelectEnroll {
			continue
		}
		if opt.Arg != "" {
			return "--" + opt.Name + "="
		}
		return "--" + opt.Name
	}
	return h.Name()
}

func first[H tokens.Handler](list []H) (h H) {
	if len(list) > 0 {
		h = list[0]
	}
	return h
}

// withoutFactors leaves out the types that a combination among them asks itself.
func withoutFactors[H tokens.Handler](list []H, asks func(tokens.Combiner, string) bool) []H {
	for _, h := range list {
		if c, ok := tokens.Handler(h).(tokens.Combiner); ok {
			return slices.DeleteFunc(slices.Clone(list), func(h H) bool { return asks(c, h.Name()) })
		}
	}
	return list
}

func (t *tokenFlag) selectUnlock() error {
	o := &t.app.options
	u, ok := t.handler.(tokens.Unlocker)
	if !ok {
		return fmt.Errorf("%s tokens cannot unlock", t.handler.Name())
	}
	o.unlockers = append(o.unlockers, u) // also twice, which is refused
	return nil
}
