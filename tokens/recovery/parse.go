package recovery

import (
	"fmt"
	"strings"

	"luksmith/luks2/secret"
)

// ParseError says where a text stops being a recovery key. It holds nothing of
// the text.
type ParseError struct {
	Group  int // 1 to 8 as on the sheet; 0 when it is about the whole text
	Letter int // 1 to 8 within the group; 0 when it is about the whole group
	Reason string
}

func (e *ParseError) Error() string {
	switch {
	case e.Group == 0:
		return e.Reason
	case e.Letter == 0:
		return fmt.Sprintf("group %d %s", e.Group, e.Reason)
	}
	return fmt.Sprintf("letter %d of group %d %s", e.Letter, e.Group, e.Reason)
}

// Parse reads a key as a person types it: in upper or lower case, the groups
// divided by dashes, white space or nothing. It returns the key in the form of
// [Generate], which the caller wipes, or a *[ParseError]. Only ASCII letters
// count: a letter of another script that looks the same is named as wrong.
func Parse(typed secret.Secret) (secret.Secret, error) {
	s := scan(typed.Bytes())
	if err := s.err(); err != nil {
		return secret.Secret{}, err
	}
	key := secret.New(Length)
	n := 0
	for _, c := range typed.Bytes() {
		if l := letter(c); l != 0 {
			place(key.Bytes(), n, l)
			n++
		}
	}
	return key, nil
}

// Candidates returns the passphrases to try for a typed text, in order: first
// the very bytes, since systemd and cryptsetup know nothing else and a passphrase
// may look like a key; then the key that they spell, if they spell one in another
// way than [Generate]. The caller wipes all, with [secret.WipeAll].
func Candidates(typed secret.Secret) []secret.Secret {
	list := []secret.Secret{typed.Clone()}
	key, err := Parse(typed)
	if err != nil || key.Equal(typed) {
		key.Wipe()
		return list
	}
	return append(list, key)
}

// Explain returns what is wrong with a text that somebody meant as a recovery
// key, as *[ParseError]: something to say after none of [Candidates] opened the
// volume. It returns nil for a well-formed key and for any other passphrase: a
// text with fewer than 48 or more than 80 letters, or with more than one in eight
// outside the alphabet, is none.
func Explain(typed secret.Secret) error {
	s := scan(typed.Bytes())
	if total := s.letters + s.wrong; total < 48 || total > 80 || 8*s.wrong > total {
		return nil
	}
	return s.err()
}

// letter returns the lower-case form of a letter of the alphabet, 0 for others.
func letter(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	if c < 'a' || c > 'z' || strings.IndexByte(Alphabet, c) < 0 {
		return 0
	}
	return c
}

func separates(c byte) bool { return c == '-' || c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// scanned is what is known of a text after one look at it.
type scanned struct {
	letters, wrong int
	groups         int             // runs between separators
	lengths        [Groups + 1]int // of the first groups, wrong characters included
	// The first wrong character, counted from 0: over all characters that are no
	// separators, and as group and place within it.
	wrongAt, wrongGroup, wrongPlace int
}

func scan(text []byte) scanned {
	var s scanned
	inside := false
	place := 0
	for _, c := range text {
		if separates(c) {
			inside = false
			continue
		}
		if !inside {
			inside, place = true, 0
			s.groups++
		}
		if letter(c) != 0 {
			s.letters++
		} else {
			if s.wrong == 0 {
				s.wrongAt, s.wrongGroup, s.wrongPlace = s.letters, s.groups-1, place
			}
			s.wrong++
		}
		s.lengths[min(s.groups-1, Groups)]++
		place++
	}
	return s
}

func (s *scanned) err() error {
	switch {
	case s.letters+s.wrong == 0:
		return &ParseError{Reason: "the text is empty"}
	case s.wrong > 0:
		return s.wrongLetter()
	case s.groups == Groups:
		for i, n := range s.lengths[:Groups] {
			if n != GroupLength {
				return &ParseError{Group: i + 1, Reason: fmt.Sprintf("has %d letters, not %d", n, GroupLength)}
			}
		}
	case s.letters != letters:
		return &ParseError{Reason: fmt.Sprintf("there are %d letters, a recovery key has %d", s.letters, letters)}
	}
	return nil
}

// wrongLetter names the place of the first wrong character by the groups that
// were typed, if there are as many as on paper; else by counting letters.
func (s *scanned) wrongLetter() error {
	e := &ParseError{Reason: "is none of " + Alphabet}
	switch {
	case s.groups == Groups && s.wrongPlace < GroupLength:
		e.Group, e.Letter = s.wrongGroup+1, s.wrongPlace+1
	case s.wrongAt < letters:
		e.Group, e.Letter = s.wrongAt/GroupLength+1, s.wrongAt%GroupLength+1
	default:
		e.Reason = fmt.Sprintf("there are more than the %d letters of a recovery key", letters)
	}
	return e
}
