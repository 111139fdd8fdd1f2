package tpm2

import (
	"context"
	"fmt"

	"luksmith/luks2"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

var (
	_ tokens.Examiner = (*Handler)(nil)
	_ tokens.Adviser  = (*Handler)(nil)
)

// verdicts are the states of [Handler.Check] in the words of all token types.
var verdicts = [...]tokens.Verdict{
	Opens: tokens.OpensAlone, NeedsPIN: tokens.OpensWithPerson, Latched: tokens.OpensNextBoot,
	OtherState: tokens.Closed, OtherTPM: tokens.Dead, NoKeyslot: tokens.Dead, Unknown: tokens.Unclear,
}

// Examine implements [tokens.Examiner].
func (h *Handler) Examine(ctx context.Context, req *tokens.UnlockRequest) ([]tokens.Examination, error) {
	states, err := h.Check(ctx, req)
	if err != nil {
		return nil, err
	}
	list := make([]tokens.Examination, len(states))
	for i, s := range states {
		list[i] = tokens.Examination{Token: s.Token, Verdict: verdicts[s.State], Err: s.Err, Spare: s.Superseded}
		if !s.State.Fits() && s.State != Unknown && len(s.Token.Keyslots) == 1 {
			list[i].Renew = fmt.Sprintf("reseal --slot=%d", s.Token.Keyslots[0])
		}
	}
	return list, nil
}

// Advise implements [tokens.Adviser].
func (h *Handler) Advise(raw luks2.Token) []tokens.Advice {
	t, err := parseToken(raw.Raw)
	if err != nil {
		return nil
	}
	var list []tokens.Advice
	if text := openTo(t.PCRs); text != "" && !t.PIN && t.SignedPCRs == 0 && !t.PCRLock {
		list = append(list, tokens.Advice{Text: text, Options: []string{"--tpm2-device=auto", "--tpm2-pcrs=7", "--tpm2-with-pin=yes"}})
	}
	if t.PCRs != 0 && t.Bank == chip.BankSHA1 {
		list = append(list, tokens.Advice{Text: "Its PCRs are in bank sha1, and values for that can be forged."})
	}
	if t.PIN && t.Parent == nil {
		list = append(list, tokens.Advice{Text: "It does not say which TPM it is for, so a fake TPM can guess its PIN; luksmith-tpm2-srk= in crypttab keeps it from one."})
	}
	return list
}
