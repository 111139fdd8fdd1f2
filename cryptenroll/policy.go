package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// policyVerb is `policy`, whose one subcommand so far is `policy verify`.
func policyVerb(a *app) *cobra.Command {
	s := newSection("Signatures")
	a.addTPM2Parameters(s.flags, tokenFlags{}, "the TPM whose PCRs count", "tpm2-signature", "tpm2-public-key")
	c := a.command("policy", "Look at signed TPM2 policies", nil, func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("policy needs a command: verify")
		}
		return cli.Unknown(fmt.Sprintf("policy has no command %q", args[0]), args[0], "", []string{"verify"})
	})
	c.Args = cobra.ArbitraryArgs
	c.AddCommand(a.onDevice("verify", "Tell which entries of a signature file would unlock now", []section{s, a.commonSection()}, a.verifyPolicy).command(a))
	return c
}

// verifyPolicy prints one line for each entry of the signature file. The status is
// 0 if at least one would unlock, 7 if none would.
func (a *app) verifyPolicy(ctx context.Context, path string) error {
	v, err := a.openVolume(ctx, path, false)
	if err != nil {
		return err
	}
	found, err := a.tpm2().VerifySignatures(ctx, &tpm2.VerifyRequest{Volume: v.forTokens()})
	if err != nil {
		return err
	}
	var none error
	if !slices.ContainsFunc(found.Entries, func(e tpm2.SignatureVerdict) bool { return e.Unlocks }) {
		none = tokens.WithHint(fmt.Errorf("%w: no entry of %s unlocks %s now", tokens.ErrPolicy, found.Path, v.path),
			"have the present values signed, or start the kernel that the signatures are for; the volume stays as it is")
	}
	if a.options.json.On() {
		return errors.Join(none, a.out.JSON(a.options.json, policyView{v.place(), v.header.UUID, found, errorView(none)}))
	}
	return errors.Join(none, printVerdicts(a.out, found))
}

// policyView is --json of policy verify.
type policyView struct {
	placeView
	UUID             string         `json:"uuid"`
	*tpm2.Signatures                // "path" is that of the signature file
	Error            *cli.ErrorView `json:"error,omitempty"` // if none unlocks
}

func printVerdicts(out *cli.Stream, found *tpm2.Signatures) error {
	t := &cli.Table{Columns: []cli.Column{{Name: "ENTRY", Right: true}, {Name: "PCRS"}, {Name: "BANK"}, {Name: "REF"}, {Name: "SIGNATURE"}, {Name: "NOW"}, {Name: "TOKENS"}, {Name: "UNLOCKS"}}}
	yes := map[bool]string{true: "yes", false: "no"}
	for _, e := range found.Entries {
		ref := ""
		if e.PolicyRef != nil {
			ref = *e.PolicyRef
		}
		t.Rows = append(t.Rows, []string{strconv.Itoa(e.Entry), numbers(e.PCRs), e.Bank, ref, e.Key, yes[e.Current], numbers(e.Tokens), yes[e.Unlocks]})
	}
	out.Linef("%s", found.Path)
	return out.Table(t)
}

// numbers joins numbers as PCR lists are written: 7+11.
func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, "+")
}
