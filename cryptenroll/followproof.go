package main

import (
	"fmt"
	"slices"
	"strings"

	"luksmith/internal/cli"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// proveStrength is refuseWeaker with the volume key: what the tokens say of themselves
// is worth something now. A key that opens without a person is made because a keyslot
// opens so today: then its conditions have to be authentic, or it opened the volume in
// this call by itself. Whoever can write the disk can take a PIN out of a token.
func (f *following) proveStrength(p *followPlan, op *opened) error {
	if saysNoPIN(f.app) || f.followsPlain(p) {
		return nil // somebody said so, and not in the header
	}
	var doubted []string
	for _, t := range p.tokens {
		proven := op.token == t.Token.ID && op.pin.Len() == 0
		if !proven && f.app.unlocking.Standing(p.header, t.Token, op.key) != tokens.Authentic {
			doubted = append(doubted, p.nameOf(t.Token.ID))
		}
	}
	stated := f.app.tpm2().StatesConditions()
	for _, s := range p.missing() {
		trusted := func(t tpm2.BootToken) bool {
			return t.Plain && subset(t.PCRs, s.pcrs) && !slices.Contains(doubted, p.nameOf(t.Token.ID))
		}
		if slices.ContainsFunc(p.tokens, trusted) || stated && len(doubted) == 0 {
			continue
		}
		err := fmt.Errorf("%w: a key for %s would open without a person as soon as PCR %s have their values, and nothing proves that %s still demands what it was enrolled with",
			cli.ErrRefused, s.label, numbers(s.pcrs), strings.Join(doubted, ", "))
		return tokens.WithHint(err, fmt.Sprintf("if that is wanted: cryptenroll follow --tpm2-pcrs=%s --tpm2-with-pin=no %s", numbers(s.pcrs), p.words()))
	}
	return nil
}
