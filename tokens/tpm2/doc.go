// Package tpm2 is the token type systemd-tpm2: a key sealed by a TPM 2.0, bound
// to PCR values, to a signed or predicted policy, to a PIN, or to several of them.
//
// It reads every form of the token that systemd 248 to 262 wrote and writes the
// newest one that the oldest wanted systemd understands. docs/formats.md lists
// the members of the token, docs/tpm2.md says what each policy protects against.
//
// # Layers
//
// From bottom to top: package chip talks to one TPM, package policy says what has to
// be satisfied before it unseals and satisfies that, package eventlog explains what
// changed in the machine, and this one reads and writes tokens and does what the
// tokens package wants of a [Handler].
//
// # What is trusted
//
// Neither the token nor the bus. The public part of the SRK comes from the token,
// never from the TPM's own answer, so a TPM that cannot use that key, or somebody
// between us and it, gets no PIN and gives no key. Names of objects are computed
// here and enter the HMAC of every protected command.
package tpm2
