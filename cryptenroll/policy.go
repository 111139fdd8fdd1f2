package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/tokens"
	"luksmith/tokens/tpm2"
)

// policyCommand is `policy`, whose one subcommand so far is `policy verify`.
func (a *app) policyCommand() *cobra.Command {
	c := a.command("policy", "Look at signed TPM2 policies", nil, nil)
	known := tokenFlags{}
	s := newSection("Signatures")
	for _, opt := range a.enrolling.ByName("tpm2").Options() {
		switch opt.Name {
		case "tpm2-signature", "tpm2-public-key", "tpm2-device":
			if opt.Place&tokens.Enrolling != 0 {
				opt.Action = tokens.Parameter
				if opt.Name == "tpm2-device" {
					opt.Help = "the TPM whose PCRs count: auto, list, a path or swtpm:path=SOCKET"
				}
				known.add(s.flags, &tokenFlag{app: a, handler: a.enrolling.ByName("tpm2"), option: opt})
			}
		}
	}
	verify := a.command("verify [DEVICE]", "Tell which entries of a signature file would unlock now", []section{s, a.commonSection()},
		func(cmd *cobra.Command, args []string) error {
			devices, err := a.devices(args)
			if err != nil {
				return err
			}
			return a.verifyPolicy(cmd.Context(), devices[0])
		})
	verify.Args = arguments(0, 1)
	c.AddCommand(verify)
	return c
}

// verifyPolicy prints one line for each entry of the signature file. The status is
// 0 if at least one would unlock, 7 if none would.
func (a *app) verifyPolicy(ctx context.Context, path string) error {
	p, err := a.openVolume(ctx, path, false)
	if err != nil {
		return err
	}
	found, err := a.enrolling.ByName("tpm2").(*tpm2.Handler).VerifySignatures(ctx, &tpm2.VerifyRequest{Volume: p.volume()})
	if err != nil {
		return err
	}
	if err := a.printVerdicts(found); err != nil {
		return err
	}
	for _, e := range found.Entries {
		if e.Unlocks {
			return nil
		}
	}
	return tokens.WithHint(fmt.Errorf("%w: no entry of %s unlocks %s now", tokens.ErrPolicy, found.Path, path),
		"have the present values signed, or start the kernel that the signatures are for; the volume stays as it is")
}

func (a *app) printVerdicts(found *tpm2.Signatures) error {
	if a.options.json.On() {
		return a.out.JSON(a.options.json, found)
	}
	t := &cli.Table{Columns: []cli.Column{{Name: "ENTRY", Right: true}, {Name: "PCRS"}, {Name: "BANK"}, {Name: "REF"}, {Name: "SIGNATURE"}, {Name: "NOW"}, {Name: "TOKENS"}, {Name: "UNLOCKS"}}}
	yes := map[bool]string{true: "yes", false: "no"}
	for _, e := range found.Entries {
		ref := ""
		if e.PolicyRef != nil {
			ref = *e.PolicyRef
		}
		t.Rows = append(t.Rows, []string{strconv.Itoa(e.Entry), numbers(e.PCRs), e.Bank, ref, e.Key, yes[e.Current], numbers(e.Tokens), yes[e.Unlocks]})
	}
	a.out.Linef("%s", found.Path)
	return a.out.Table(t)
}

// numbers joins numbers as PCR lists are written: 7+11.
func numbers(list []int) string {
	texts := make([]string, len(list))
	for i, n := range list {
		texts[i] = strconv.Itoa(n)
	}
	return strings.Join(texts, "+")
}
