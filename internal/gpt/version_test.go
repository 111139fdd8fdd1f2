package gpt

import (
	"math/rand/v2"
	"os/exec"
	"testing"

	"luksmith/internal/test/testenv"
)

// versions are pairs, older first, that the specification and systemd's tests are about.
var versions = [][2]string{
	{"", "0"}, {"~", ""}, {"1~rc1", "1"}, {"1~", "1~a"}, {"1~~", "1"}, {"1~1", "1~2"}, {"123", "123a"}, {"123", "123.a"}, {"123.a", "123.b"},
	{"123.a", "123a"}, {"A", "a"}, {"a", "0"}, {"a", "b"}, {"0", "0."}, {"0", "0.0"}, {"1_", "1.2"}, {"1.3.3", "1_2_3"}, {"1.3.3", "1+2+3"},
	{"bar-123", "foo-123"}, {"1", "1-"}, {"1", "1^"}, {"1^", "1^1"}, {"1-", "1^"}, {"1^", "1."}, {"1.", "1a"}, {"9", "10"}, {"0009", "010"},
	{"fooOS_2021.4", "fooOS_2021.10"}, {"fooOS_2021.10~beta", "fooOS_2021.10"}, {"99999999999999999998", "99999999999999999999"},
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	for _, v := range versions {
		if CompareVersions(v[0], v[1]) != -1 || CompareVersions(v[1], v[0]) != 1 || CompareVersions(v[0], v[0]) != 0 {
			t.Errorf("%q is not older than %q", v[0], v[1])
		}
	}
	for _, same := range [][2]string{{"11α", "11β"}, {"1_", "1"}, {"_1", "1"}, {"1+", "1"}, {"+1", "1"}, {"001", "1"}, {"a1", "a01"}, {"", "_+"}} {
		if CompareVersions(same[0], same[1]) != 0 || CompareVersions(same[1], same[0]) != 0 {
			t.Errorf("%q and %q differ", same[0], same[1])
		}
	}
}

// TestCompareVersionsAsSystemd asks systemd about the same pairs, and about some that
// nobody thought of.
func TestCompareVersionsAsSystemd(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "systemd-analyze")
	pairs := versions
	random := rand.New(rand.NewPCG(1, 2))
	word := func() string {
		const letters = "0019abAZ~^-._+"
		b := make([]byte, random.IntN(7))
		for i := range b {
			b[i] = letters[random.IntN(len(letters))]
		}
		return string(b)
	}
	for range 150 {
		start := word()
		pairs = append(pairs, [2]string{start + word(), start + word()})
	}
	for _, p := range pairs {
		op := map[int]string{-1: "lt", 0: "eq", 1: "gt"}[CompareVersions(p[0], p[1])]
		if err := exec.Command("systemd-analyze", "compare-versions", "--", p[0], op, p[1]).Run(); err != nil {
			t.Errorf("systemd does not find %q %s %q: %v", p[0], op, p[1], err)
		}
	}
}
