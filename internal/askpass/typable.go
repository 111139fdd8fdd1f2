package askpass

import (
	"bytes"
	"context"
	"fmt"
	"unicode"
	"unicode/utf8"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// untypable says why nobody can type a text where it will be asked for; empty if
// somebody can.
func untypable(s secret.Secret) (why string) {
	secret.Do(func() {
		switch b := s.Bytes(); {
		case endsWithLineEnd(b):
			why = "it ends with a line end, as echo and editors add"
		case len(b) > maxTyped:
			why = "it is longer than prompts take"
		case !utf8.Valid(b):
			why = "it is not UTF-8 text"
		case bytes.ContainsFunc(b, unicode.IsControl):
			why = "it has control characters"
		case bytes.ContainsFunc(b, invisible):
			why = "it has characters that nobody sees, such as the byte order mark that editors write"
		case len(b) > maxElsewhere:
			why = fmt.Sprintf("it is longer than the %d bytes that cryptsetup takes at a prompt", maxElsewhere)
		}
	})
	return why
}

// maxElsewhere is the longest passphrase that cryptsetup takes from a person (cryptsetup
// --help). Prompts here, and systemd's, take more.
const maxElsewhere = 512

// invisible holds for what a copy from a document or an editor brings along and no
// keyboard does. The joiners of Persian and Indian scripts are typed.
func invisible(r rune) bool {
	const nonJoiner, joiner = '\u200c', '\u200d'
	return r != nonJoiner && r != joiner && r != ' ' && unicode.In(r, unicode.Cf, unicode.Co, unicode.Z)
}

func endsWithLineEnd(b []byte) bool {
	return len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r')
}

// judge is find, with a look at the answer. A new PIN that nobody can type is refused:
// whoever types it costs the device a try. A new passphrase of that kind may be meant
// so, and is named. A present PIN is what it is, but a line end in it is seldom meant,
// and counts: that is said before it costs a try.
func (s *statics) judge(ctx context.Context, q *Question, mute bool) (Answer, error) {
	answer, err := s.find(ctx, q, mute)
	if err != nil || len(answer.Secrets) == 0 {
		return answer, err
	}
	why, place := untypable(answer.Secrets[0]), string(answer.Source)+" "+answer.Name
	switch {
	case why == "":
	case q.New && q.isPIN():
		answer.Wipe()
		return Answer{}, tokens.WithHint(fmt.Errorf("the new PIN from %s cannot be typed: %s", place, why), "write it like this: printf %s 123456 >FILE")
	case q.New:
		s.warn(fmt.Sprintf("the new passphrase from %s cannot be typed at a prompt: %s", place, why))
	case q.isPIN() && endsWithLineEnd(answer.Secrets[0].Bytes()):
		s.warn(fmt.Sprintf("the PIN from %s ends with a line end, which counts as a part of it", place))
	}
	return answer, nil
}
