// Package tokentest holds what the tests of every token type share: [Run], the
// conformance suite, and [UI], a person who answers from a script.
//
// The test of a type is short:
//
//	func TestConformance(t *testing.T) {
//		chip := startChip(t)
//		tokentest.Run(t, tokentest.Subject{
//			New:           func(t *testing.T) tokens.Handler { return &Handler{device: chip.Path, withPIN: true} },
//			Absent:        func(t *testing.T) tokens.Handler { return &Handler{device: "/nonexistent"} },
//			EnrollAnswers: []string{"1234"},
//			UnlockAnswers: []string{"1234"},
//			Valid:         []tokentest.Fixture{{Name: "systemd257-pcr", Token: read(t, "systemd257-pcr.json")}},
//			Malformed:     []tokentest.Malformed{{Name: "no blob", Token: `{…}`, Field: "tpm2-blob"}},
//			Sealed:        []string{"tpm2-blob"},
//		})
//	}
//
// Parts that a type lacks (no [tokens.Unlocker], no device) are left out without
// a word. What only one type can show, such as a wrong PIN or a device pulled out,
// belongs into its own tests.
package tokentest
