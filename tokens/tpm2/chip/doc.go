// Package chip is the conversation with one TPM 2.0: commands, what they load, the
// sessions that keep secrets off the bus, and the structures that tokens hold.
//
// A link carries bytes to a device or a swtpm. [Conn] sends one command at a time,
// sends it again when the TPM asks for that, and flushes whatever was loaded.
// [Session] is our tpm2.Session, salted to the storage key, which encrypts the sealed
// key and what a PIN gives. It knows nothing of tokens, volumes or options.
package chip
