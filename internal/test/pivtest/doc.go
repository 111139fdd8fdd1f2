// Package pivtest holds a smartcard and a reader made of software, for tests: a
// PIV card that looks like a YubiKey to OpenSC, and pcscd of its own with
// vsmartcard's virtual reader. With both, a test goes through everything that a
// real key does but the USB cable, and can pull the card out.
//
// The card does what unlocking needs (NIST SP 800-73-4 Part 2 §3): SELECT, GET
// DATA, VERIFY with a retry counter, GENERAL AUTHENTICATE for RSA and ECDH, command
// chaining and GET RESPONSE. Keys are put in from outside.
package pivtest
