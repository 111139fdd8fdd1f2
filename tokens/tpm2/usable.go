package tpm2

import (
	"encoding/json"
	"fmt"
	"strconv"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/policy"
)

// unusable says why this version cannot or must not try the token.
func (t *token) unusable() string {
	switch {
	case t.ECSigned():
		return "the key of the signed policy " + policy.ErrECKey.Error()
	case t.PIN && len(t.unknown) > 0:
		// A newer way to stretch the PIN would make the right PIN a wrong one,
		// and every try counts.
		return fmt.Sprintf("made by a newer systemd: unknown member %s", quoteMember(t.unknown[0]))
	}
	return ""
}

// quoteMember shows a name from the header.
func quoteMember(name string) string {
	if len(name) > 40 {
		name = name[:40] + "..."
	}
	if strconv.QuoteToASCII(name) == `"`+name+`"` {
		return name
	}
	return strconv.QuoteToASCII(name)
}

// renewableToken reads a token from which another is to be made.
func renewableToken(raw json.RawMessage) (*token, error) {
	t, err := parseToken(raw)
	if err != nil {
		return nil, err
	}
	return t, t.renewable()
}

// renewable says why no other token can be made from this one: it cannot be tried, or
// contradicts itself.
func (t *token) renewable() error {
	if reason := t.unusable(); reason != "" {
		return fmt.Errorf("%w: %s", tokens.ErrUnsupported, reason)
	}
	if t.Contradict(t.policy) {
		return contradiction()
	}
	return nil
}
