package tpm2

import (
	"context"
	"errors"
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/policy"
)

// State says whether a token would open the volume now, on this machine.
type State int

const (
	// Opens: it was unsealed, and opened the volume if that could be tried.
	Opens State = iota
	// NeedsPIN: the TPM has the key and the policy is satisfied; the PIN was not
	// asked for.
	NeedsPIN
	// Latched: it would open, had the volume key not been measured in this boot. It
	// opens in the next.
	Latched
	// OtherState: it is for this TPM, but the policy is not satisfied now. An
	// update may have made it useless, or the previous version of the system
	// may still need it.
	OtherState
	// OtherTPM: this TPM cannot load it and never will: it is another one, or
	// was cleared.
	OtherTPM
	// NoKeyslot: it unseals, but the passphrase opens no keyslot of it.
	NoKeyslot
	// Unknown: something else went wrong; the token may be good.
	Unknown
)

// String says it in words.
func (s State) String() string {
	switch s {
	case Opens:
		return "opens now"
	case NeedsPIN:
		return "opens now with its PIN"
	case Latched:
		return "is latched until the next boot, and opens then"
	case OtherState:
		return "is for another state of the machine"
	case OtherTPM:
		return "is for another TPM"
	case NoKeyslot:
		return "gives a key that opens no keyslot"
	}
	return "could not be checked"
}

// Dead reports whether the token can never open the volume again.
func (s State) Dead() bool { return s == OtherTPM || s == NoKeyslot }

// Fits reports whether the token opens, now or in the next boot of the machine as
// it is.
func (s State) Fits() bool { return s == Opens || s == NeedsPIN || s == Latched }

// TokenState is the verdict on one token.
type TokenState struct {
	Token luks2.Token
	Label string
	State State
	Err   error // why it does not open; nil for Opens and NeedsPIN
	// Superseded: another token was made with the same options, and opens or is
	// newer. This one is left from an earlier version of the system.
	Superseded bool
}

// Check tells which tokens of a request would open the volume now, without asking
// anybody anything and without costing a try. Tokens that are malformed are
// Unknown.
func (h *Handler) Check(ctx context.Context, req *tokens.UnlockRequest) ([]TokenState, error) {
	if len(req.Tokens) == 0 {
		return nil, nil
	}
	c, err := h.connect(ctx, h.unlockDeviceOr())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	o := &opener{h: h, c: c, volume: req.Volume}
	list := make([]TokenState, 0, len(req.Tokens))
	parsed := make([]*token, 0, len(req.Tokens))
	for _, raw := range req.Tokens {
		t, err := parseToken(raw.Raw)
		parsed = append(parsed, t)
		if err != nil {
			list = append(list, TokenState{Token: raw, State: Unknown, Err: err})
			continue
		}
		list = append(list, o.check(&candidate{raw, t}, req))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	markSuperseded(list, parsed)
	return list, nil
}

// markSuperseded compares every two tokens; nil ones are malformed.
func markSuperseded(list []TokenState, parsed []*token) {
	for i, t := range parsed {
		for k, other := range parsed {
			if i == k || t == nil || other == nil || !t.sameConditions(other) {
				continue
			}
			fits, otherFits := list[i].State.Fits(), list[k].State.Fits()
			newer := other.extra.Created > t.extra.Created || other.extra.Created == t.extra.Created && k > i
			if otherFits && !fits || otherFits == fits && newer {
				list[i].Superseded = true
			}
		}
	}
}

// check is Check for one token. req may be nil.
func (o *opener) check(cand *candidate, req *tokens.UnlockRequest) TokenState {
	s := TokenState{Token: cand.raw, Label: string(cand.parsed.extra.Label)}
	if cand.parsed.PIN {
		s.State, s.Err = NeedsPIN, o.satisfiable(cand.parsed)
	} else {
		s.Err = o.openAndCheck(cand, req)
	}
	switch {
	case s.Err == nil:
	case errors.Is(s.Err, tokens.ErrOtherDevice):
		s.State = OtherTPM
	case onlyLatched(s.Err):
		s.State = Latched
	case errors.Is(s.Err, tokens.ErrPolicy):
		s.State = OtherState
	case errors.Is(s.Err, tokens.ErrWrongKey):
		s.State = NoKeyslot
	default:
		s.State = Unknown
	}
	return s
}

func (o *opener) openAndCheck(cand *candidate, req *tokens.UnlockRequest) error {
	passphrase, err := o.open(cand.parsed)
	if err != nil {
		return err
	}
	defer passphrase.Wipe()
	if req == nil {
		return nil
	}
	return req.Check(o.c.Context(), cand.raw, passphrase)
}

// satisfiable reports whether everything but the PIN is right: the TPM loads the
// objects, and its policy sessions reach their policies.
func (o *opener) satisfiable(t *token) error {
	if reason := t.unusable(); reason != "" {
		return fmt.Errorf("%w: %s", tokens.ErrUnsupported, reason)
	}
	return o.withShards(t, func(r *tokenRun, p *chip.Parent, shards []shard) error {
		for i := range shards {
			digest, err := o.c.PolicyGetDigest(shards[i].session)
			if err != nil {
				return err
			}
			if digest != t.policy[i] {
				return o.explain(r, policy.ErrPCRsDiffer)
			}
		}
		return nil
	})
}
