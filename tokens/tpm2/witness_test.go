package tpm2

import (
	"bytes"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/luks2"
	"luksmith/tokens"
)

// TestWitnessCostsOneCommand: what a record of the boot says about the TPM is read
// once, also where nothing opens.
func TestWitnessCostsOneCommand(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	var list []luks2.Token
	for i := range 3 {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, "7")
		list = append(list, asToken(i, enrolled(t, h).Token))
		swtpm.Extend(7, "sha256", make([]byte, 32))
	}
	for _, c := range []struct {
		name         string
		tokens       []luks2.Token
		alone, count int
		failed       int
	}{
		{"one that does not fit", list[:1], 6, 7, 1},
		{"several that do not fit", list, 2, 2, 3},
	} {
		for _, watched := range []bool{false, true} {
			h := handlerFor(t, swtpm.Device())
			var seen *tokens.Sight
			most := c.alone
			if watched {
				h.Witness(func(s *tokens.Sight) { seen = s })
				most = c.count
			}
			swtpm.Mark()
			if _, err := h.Unlock(t.Context(), &tokens.UnlockRequest{Tokens: c.tokens}, tokentest.NewUI(t)); err == nil {
				t.Fatalf("%s: opened", c.name)
			}
			checkCount(t, swtpm, most)
			if !watched {
				continue
			}
			if seen == nil || seen.Bank != "sha256" || len(seen.PCRs) != 8 || bytes.Equal(seen.PCRs[7], make([]byte, 32)) || len(seen.Failed) != c.failed || len(seen.Policies) != c.failed {
				t.Errorf("%s: %+v", c.name, seen)
			}
		}
	}
}

// TestWitnessSeesTheTokensOfEveryKind: also those that hang on no PCR, or on one
// that nobody else reads.
func TestWitnessSeesTheTokensOfEveryKind(t *testing.T) {
	t.Parallel()
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for pcrs, want := range map[string]int{"": 8, "4+7": 8, "0+2+4:sha256": 10, "16": 9} {
		h := handlerFor(t, swtpm.Device())
		h.PCRs = mustPCRs(t, pcrs)
		tok := asToken(0, enrolled(t, h).Token)
		var seen *tokens.Sight
		h.Witness(func(s *tokens.Sight) { seen = s })
		if _, err := unlockToken(t, h, tok); err != nil {
			t.Fatal(err)
		}
		if seen == nil || len(seen.PCRs) != want || len(seen.Failed) != 0 {
			t.Errorf("PCRs %q: %+v", pcrs, seen)
		}
	}
}
