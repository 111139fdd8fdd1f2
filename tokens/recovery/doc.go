// Package recovery makes recovery keys: 256 random bits that a person can read,
// type and keep on paper.
//
// The key is 64 letters of modhex, the alphabet that sits in the same place on
// most keyboards, in eight groups of eight with dashes between them: 71
// characters. This text itself is the passphrase of the keyslot; the token holds
// nothing but its type. systemd 248 and later write and read the same.
//
// # What the handler does and what the command does
//
// [Handler] makes the key and the token. It never shows the key. cryptenroll does,
// in this order, so that a key that was handed out opens the volume and nothing
// old goes before the new key is known to be in safe hands:
//
//  1. reserve the file of --recovery-sheet (package sheet): a name that is taken,
//     a folder that is read-only or a missing luksmith-sheet ends the command
//     before anything is written;
//  2. write keyslot and token, and open the volume with the key from the disk;
//  3. [Print] the key alone to standard output. If that fails, remove the keyslot
//     again, since nobody has the key. A key from [Handler.KeyFile] is not printed:
//     whoever made it has it;
//  4. the words around it and the QR code (package qr) to the terminal or
//     standard error, and the sheet to its file;
//  5. with --recovery-confirm a [Challenge];
//  6. only then wipe what --wipe-slot names.
//
// Unlocking has no handler: a person types the key at the passphrase prompt.
// [Candidates] says what to try for a typed text, [Explain] what is wrong with it.
package recovery
