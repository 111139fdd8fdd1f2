package recovery

import (
	"crypto/rand"
	"fmt"

	"luksmith/luks2/secret"
)

// Challenge asks somebody who was given a key to type two groups of it back.
type Challenge struct {
	Groups [2]int // numbers of the groups, 1 to 8, the first one smaller
}

// NewChallenge chooses the groups at random.
func NewChallenge() Challenge {
	var b [2]byte
	rand.Read(b[:])
	first := int(b[0] % Groups)
	second := (first + 1 + int(b[1]%(Groups-1))) % Groups
	return Challenge{[2]int{1 + min(first, second), 1 + max(first, second)}}
}

// Question is the text for the prompt.
func (c Challenge) Question() string {
	return fmt.Sprintf("Groups %d and %d of the recovery key", c.Groups[0], c.Groups[1])
}

// Check compares the answer with the key. Case, dashes and spaces do not matter.
// The error is a *[ParseError] that names the group, if one differs.
func (c Challenge) Check(key, typed secret.Secret) error {
	if s := scan(typed.Bytes()); s.letters+s.wrong != 2*GroupLength {
		return &ParseError{Reason: fmt.Sprintf("two groups have %d letters, you typed %d", 2*GroupLength, s.letters+s.wrong)}
	}
	n := 0
	for _, b := range typed.Bytes() {
		if separates(b) {
			continue
		}
		group := c.Groups[n/GroupLength]
		if letter(b) != Group(key, group)[n%GroupLength] {
			return &ParseError{Group: group, Reason: "differs from the recovery key"}
		}
		n++
	}
	return nil
}
