package cli

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"luksmith/tokens"
)

// ExplainDenial adds a hint for those who are not root, where something was denied to
// them: the same call with sudo, unless a PIN may stand in it.
func ExplainDenial(err error, name string, args []string) error {
	if !errors.Is(err, fs.ErrPermission) || os.Geteuid() == 0 {
		return err
	}
	if slices.ContainsFunc(args, func(word string) bool { return strings.Contains(word, "pin-value") }) {
		return tokens.WithHint(err, "try again as root")
	}
	return tokens.WithHint(err, "try again as root: sudo "+ShellWords(append([]string{name}, args...)...))
}
