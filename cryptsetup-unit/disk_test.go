package main

import "testing"

func TestUdevEscapesAreUndone(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "", "EFI": "EFI", `EFI\x20system`: "EFI system", `\x5cx20`: `\x20`, `B\xc3\xbcro`: "Büro",
		`a\x2`: `a\x2`, `a\xzz`: `a\xzz`, `a\x+1`: `a\x+1`, `a\`: `a\`,
	} {
		if got := unescapeUdev(in); got != want {
			t.Errorf("%q is read as %q, want %q", in, got, want)
		}
	}
}
