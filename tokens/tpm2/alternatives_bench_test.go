package tpm2

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
)

// BenchmarkAlternatives unlocks with 1 to 8 tokens of which the last one alone fits.
// "commands" are those that the TPM gets; "wall/one" is the time by that with one token,
// in turn, the software TPM's part included.
func BenchmarkAlternatives(b *testing.B) {
	one := newContender(b, 1)
	for _, n := range []int{1, 2, 4, 8} {
		b.Run(fmt.Sprintf("last of %d", n), func(b *testing.B) {
			all := newContender(b, n)
			var ours, single []time.Duration
			commands := 0
			for b.Loop() {
				took, count := all.unlock(b)
				ours, commands = append(ours, took), count
				took, _ = one.unlock(b)
				single = append(single, took)
			}
			slices.Sort(ours)
			slices.Sort(single)
			b.ReportMetric(0, "ns/op") // of both: of no use
			b.ReportMetric(float64(commands), "commands")
			b.ReportMetric(ours[len(ours)/2].Seconds()*1000, "wall-ms")
			b.ReportMetric(ours[len(ours)/2].Seconds()/single[len(single)/2].Seconds(), "wall/one")
		})
	}
}

// contender is a TPM with tokens.
type contender struct {
	swtpm *testenv.TPM
	h     *Handler
	req   tokens.UnlockRequest
}

func newContender(b *testing.B, n int) *contender {
	b.Helper()
	c := &contender{swtpm: testenv.StartTPM(b, testenv.TPMOptions{})}
	c.req.Tokens = alternatives(b, c.swtpm, n)
	c.h = handlerFor(b, c.swtpm.Device())
	return c
}

func (c *contender) unlock(b *testing.B) (took time.Duration, commands int) {
	b.Helper()
	c.swtpm.Mark()
	begin := time.Now()
	got, err := c.h.Unlock(b.Context(), &c.req, tokentest.NewUI(b))
	took = time.Since(begin)
	if err != nil {
		b.Fatal(err)
	}
	got.Passphrase.Wipe()
	return took, len(c.swtpm.Commands())
}
