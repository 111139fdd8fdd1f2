package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/durable"
	"luksmith/internal/spec"
	"luksmith/tokens"
)

// systemView is what became of the system that uses a volume, or would.
type systemView struct {
	Crypttab *crypttab.Changed `json:"crypttab,omitempty"`
	Initrd   string            `json:"initrd,omitempty"` // the command that was run
}

// changes reports whether the line in crypttab is another one.
func (s *systemView) changes() bool { return s.Crypttab != nil && s.Crypttab.Old != s.Crypttab.New }

// systemRun brings what uses a volume in step with its keyslots: the line in crypttab,
// and the initrd.
type systemRun struct {
	*ensureRun
	volume *volume
	view   systemView
}

// survey finds out what is to be changed, and that it can be. writes says that the
// header is.
func (s *systemRun) survey(writes bool) (err error) {
	if c := s.spec.Crypttab; c != nil {
		if c.File == "" && s.volume.part != nil {
			return c.Wrap(usagef("a disk image is not part of this machine: name the crypttab of its system with file"))
		}
		if s.view.Crypttab, err = s.change().Preview(s.crypttab()); err != nil {
			return err
		}
		s.view.Crypttab.File = s.crypttab()
	}
	if s.spec.Initrd == nil {
		return nil
	}
	words, err := s.words()
	if err == nil && (writes || s.view.changes() || s.marked()) {
		s.view.Initrd = cli.ShellWords(words...)
	}
	return err
}

func (s *systemRun) change() *crypttab.Change {
	return s.app.reporter().crypttabChange(&plan{volume: s.volume}, &tokens.Enrollment{Crypttab: s.spec.Crypttab.Options})
}

// crypttab is the path of the file.
func (s *systemRun) crypttab() string { return cmp.Or(s.spec.Crypttab.File, s.below(systemCrypttab)) }

// words are the command that makes the initrd and its arguments.
func (s *systemRun) words() ([]string, error) {
	words := s.spec.Initrd
	if len(words) == 1 && words[0] == spec.Auto {
		if words = strings.Fields(initrdCommand(s.app.root)); len(words) == 0 {
			return nil, s.spec.Wrap(errors.New("initrd: no program that makes initrds is known here: name the command"))
		}
	}
	_, err := exec.LookPath(words[0])
	return words, err
}

// mark is a file that is there from before a change until the initrd was made after
// it.
func (s *systemRun) mark() string { return s.below("var/lib/luksmith/ensure-initrd") }

// marked reports whether an earlier run did not come to make the initrd.
func (s *systemRun) marked() bool {
	_, err := os.Stat(s.mark())
	return err == nil
}

// prepare notes, before anything is written, that the initrd is to be made.
func (s *systemRun) prepare() error {
	if s.view.Initrd == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.mark()), 0o755); err != nil {
		return err
	}
	return durable.Replace(s.mark(), nil)
}

// bring changes the line in crypttab and has the initrd made.
func (s *systemRun) bring(ctx context.Context) (changed bool, err error) {
	if changed = s.view.changes(); changed {
		if s.view.Crypttab, err = s.change().Write(s.crypttab()); err != nil {
			return false, err
		}
	}
	if s.view.Initrd == "" {
		return changed, nil
	}
	words, err := s.words()
	if err != nil {
		return changed, err
	}
	if err := program(ctx, words).Run(); err != nil {
		return changed, tokens.WithHint(fmt.Errorf("making the initrd with %s: %w", s.view.Initrd, err), "the next run of ensure tries it again")
	}
	if err := os.Remove(s.mark()); !errors.Is(err, fs.ErrNotExist) {
		return true, err
	}
	return true, nil
}

// program is a command of the spec. What it prints is no result of ours.
func program(ctx context.Context, words []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	return cmd
}
