package tpm2

import (
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

func TestConformance(t *testing.T) {
	swtpm := testenv.StartTPM(t, testenv.TPMOptions{})
	for name, pin := range map[string]PINMode{"without PIN": PINNone, "direct PIN": PINDirect} {
		t.Run(name, func(t *testing.T) {
			answers, valid, malformed := []string{"4711"}, validTokens(t)[:1], malformedTokens(t)[:1]
			if pin == PINNone {
				answers, valid, malformed = nil, validTokens(t), malformedTokens(t)
			}
			tokentest.Run(t, tokentest.Subject{
				New: func(t *testing.T) tokens.Handler {
					h := handlerFor(t, swtpm.Device())
					h.PCRs, h.WithPIN = mustPCRs(t, "7+11"), pin
					return h
				},
				Absent: func(t *testing.T) tokens.Handler {
					h := handlerFor(t, "/nonexistent/tpmrm0")
					h.WithPIN = pin
					return h
				},
				EnrollAnswers: answers,
				UnlockAnswers: answers,
				Valid:         valid,
				Malformed:     malformed,
				Sealed:        []string{memberBlob, memberSalt, memberSRK},
			})
		})
	}
}

func mustPCRs(t testing.TB, text string) *chip.Selection {
	t.Helper()
	s, err := chip.ParsePCRs(text)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

// validTokens have every member between them. TestSamplesAreRead has the others.
func validTokens(t testing.TB) []tokentest.Fixture {
	all := samples(t)
	var list []tokentest.Fixture
	for _, name := range []string{"pin262", "pubref262", "shard257"} {
		list = append(list, tokentest.Fixture{Name: name, Token: string(all[name])})
	}
	return list
}

// malformedTokens are real tokens with one thing wrong.
func malformedTokens(t testing.TB) []tokentest.Malformed {
	all := samples(t)
	var list []tokentest.Malformed
	for _, c := range []struct{ sample, member, value, field string }{
		{"t257", memberBlob, ``, memberBlob},
		{"t257", memberBlob, `5`, memberBlob},
		{"t257", memberBlob, `"AJ4"`, memberBlob},
		{"t257", memberBlob, `"AJ4AIA=="`, memberBlob},
		{"t257", memberBlob, `""`, memberBlob},
		{"t257", memberBlob, `[]`, memberBlob},
		{"t257", memberPCRs, ``, memberPCRs},
		{"t257", memberPCRs, `[24]`, memberPCRs},
		{"t257", memberPCRs, `[-1]`, memberPCRs},
		{"t257", memberPCRs, `[7,7]`, memberPCRs},
		{"t257", memberPCRs, `[null]`, memberPCRs},
		{"t257", memberPCRs, `"7"`, memberPCRs},
		{"t257", memberBank, `"md5"`, memberBank},
		{"t257", memberBank, `11`, memberBank},
		{"t257", memberPrimaryAlg, `"dsa"`, memberPrimaryAlg},
		{"t257", memberPolicyHash, ``, memberPolicyHash},
		{"t257", memberPolicyHash, `"00"`, memberPolicyHash},
		{"t257", memberPolicyHash, `"` + strings.Repeat("zz", 32) + `"`, memberPolicyHash},
		{"t257", memberPolicyHash, `"` + strings.Repeat("00", 32) + `"`, memberPolicyHash},
		{"t257", memberPolicyHash, `["` + strings.Repeat("00", 32) + `"]`, memberPolicyHash},
		{"t257", memberPIN, `"yes"`, memberPIN},
		{"t257", memberSRK, `"gQAAAQ=="`, memberSRK},
		{"t257", memberSRK, `"AAAA"`, memberSRK},
		{"pin262", memberSalt, `"!"`, memberSalt},
		{"pin262", memberSalt, ``, memberSalt},
		{"pin262", memberMemcost, ``, memberMemcost},
		{"pin262", memberLanes, ``, memberMemcost},
		{"pin262", memberIterations, `0`, memberIterations},
		{"pin262", memberLanes, `4294967296`, memberLanes},
		{"pin262", memberMemcost, `1024`, memberMemcost},
		{"pub257", memberPubkey, ``, memberPubkey},
		{"pub257", memberPubkey, `"AAAA"`, memberPubkey},
		{"pub257", memberPubkeyPCRs, `[99]`, memberPubkeyPCRs},
		{"pubref262", memberPubkeyRef, `7`, memberPubkeyRef},
		{"shard257", memberPolicyHash, `["1ca882ea96dc71a358d9acc783706bc5eb6e76957abc1270dba9696abd1e09cf"]`, memberPolicyHash},
		{"shard257", memberPCRLock, `false`, memberBlob},
		{"t257", memberPCRLock, `1`, memberPCRLock},
		{"pcrlock257", memberPCRLockNV, `"AY6j"`, memberPCRLockNV},
	} {
		text := changed(t, all[c.sample], c.member, c.value)
		list = append(list, tokentest.Malformed{Name: c.sample + " " + c.member + "=" + c.value, Token: text, Field: c.field})
	}
	return list
}
