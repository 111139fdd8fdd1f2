// Package policy says under which conditions a TPM unseals the key of a token, and
// satisfies them: values of PCRs, values that somebody signed or that
// systemd-pcrlock predicted, a PIN.
//
// [Conditions] computes the digests, [Run] goes through the commands of one session.
// Files are parsed here and looked for elsewhere.
package policy
