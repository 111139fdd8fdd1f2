package cli

import (
	"strings"

	"luksmith/tokens"
)

// ShellWords joins words into a command line, see [tokens.ShellWord].
func ShellWords(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = tokens.ShellWord(w)
	}
	return strings.Join(quoted, " ")
}
