// Package tokens says what a token type is: how one is enrolled, unlocked,
// described and configured. The types themselves are the folders below it;
// tokens/all is the one list of them.
//
// A handler works with secrets and JSON objects only. It never sees the disk: the
// command adds the keyslot and token to the header, and tries the passphrase that
// a handler derives. So a handler can be tested without a volume, and a later
// type can combine others.
//
// # To add a token type
//
//  1. Make a folder tokens/NAME with a type Handler that implements [Handler]
//     and, as far as they make sense, [Enroller], [Unlocker], [Watcher] and
//     [DeviceLister]. Its exported fields hold the options; [Handler.Options] binds names to
//     them. [Members] and [Member] read the JSON, [NewExtra] makes our part of it.
//  2. Add one line to tokens/all.
//  3. Run the conformance suite of internal/test/tokentest in its tests.
//  4. Add a section to docs/formats.md and the options to the manuals; a test
//     fails while one is missing.
//
// A C library never gets linked into the commands: see internal/helper.
package tokens
