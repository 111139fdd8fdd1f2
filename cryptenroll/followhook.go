package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"luksmith/internal/cli"
	"luksmith/tokens/tpm2/bootrecord"
)

// hookLimit is how long a package manager is kept waiting.
const hookLimit = 25 * time.Second

// errNoOwnKey: no token of the running boot opens the volume by itself.
var errNoOwnKey = errors.New("no TPM2 token opens it in this boot without a person: cryptenroll follow")

// runHook is a call that nobody watches. It does nothing before a person has called
// follow, never fails, and says one line at most.
func (f *following) runHook(ctx context.Context, args []string) error {
	if len(args) > 0 || f.off || f.app.options.dryRun || f.app.options.json.On() {
		return usagef("--hook goes with no volume, and not with --off, --dry-run and --json")
	}
	if list, err := bootrecord.ReadFollowing(f.app.root); err == nil && (list == nil || len(list.Volumes) == 0) {
		return nil
	}
	ctx, stop := context.WithTimeout(ctx, hookLimit)
	defer stop()
	f.app.msg.Level = cli.LevelNothing
	plans, err := f.workUnattended(ctx)
	if line := hookLine(plans, err); line != "" {
		f.app.msg.Err.Linef("luksmith: %s", line)
	}
	return nil
}

func (f *following) workUnattended(ctx context.Context) ([]*followPlan, error) {
	unlock, err := f.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	volumes, err := f.followed(ctx)
	if err != nil {
		return nil, err
	}
	plans, err := f.work(ctx, volumes)
	return plans, errors.Join(err, f.missing)
}

// hookLine is what a hook says; "" if nothing was to be done.
func hookLine(plans []*followPlan, err error) string {
	if err != nil {
		text, _, _ := strings.Cut(err.Error(), "\n")
		return "the next boot may ask for a passphrase: " + text
	}
	made := 0
	var without []*followState
	for _, p := range plans {
		if p.ownStates() == 0 {
			return "the next boot may ask for a passphrase: " + noOwnEntry
		}
		made += len(p.made)
		for _, s := range p.states {
			if !s.foreign && !s.covered() {
				without = append(without, s)
			}
		}
	}
	switch {
	case len(without) == 1:
		return fmt.Sprintf("%s will ask for a passphrase: %s", without[0].label, without[0].reason)
	case len(without) > 1:
		return fmt.Sprintf("%s and %d more boot entries will ask for a passphrase: %s", without[0].label, len(without)-1, without[0].reason)
	case made == 1:
		return "a keyslot was made for the next boot"
	case made > 1:
		return fmt.Sprintf("%d keyslots were made for the next boot", made)
	}
	return ""
}
