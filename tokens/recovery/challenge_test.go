package recovery

import (
	"strings"
	"testing"
)

func TestChallenge(t *testing.T) {
	groups := strings.Split(sample, "-")
	c := Challenge{[2]int{3, 8}}
	key := typed(t, sample)
	for _, a := range []struct{ answer, want string }{
		{groups[2] + "-" + groups[7], ""},
		{strings.ToUpper(groups[2]) + "  " + groups[7] + "\n", ""},
		{groups[2] + groups[7], ""},
		{groups[7] + " " + groups[2], "group 3 differs from the recovery key"},
		{groups[2] + " " + groups[6], "group 8 differs from the recovery key"},
		{groups[2] + " aaaaaaaa", "group 8 differs from the recovery key"},
		{groups[2], "two groups have 16 letters, you typed 8"},
		{"", "two groups have 16 letters, you typed 0"},
		{sample, "two groups have 16 letters, you typed 64"},
	} {
		got := ""
		if err := c.Check(key, typed(t, a.answer)); err != nil {
			got = err.Error()
		}
		if got != a.want {
			t.Errorf("%q: %q, want %q", a.answer, got, a.want)
		}
	}
	if got := c.Question(); got != "Groups 3 and 8 of the recovery key" {
		t.Errorf("question %q", got)
	}
}

func TestChallengesDiffer(t *testing.T) {
	seen := map[[2]int]int{}
	for range 2000 {
		g := NewChallenge().Groups
		if g[0] < 1 || g[0] >= g[1] || g[1] > Groups {
			t.Fatalf("groups %v", g)
		}
		seen[g]++
	}
	if len(seen) != Groups*(Groups-1)/2 {
		t.Errorf("%d different pairs in 2000 challenges, want all 28", len(seen))
	}
}
