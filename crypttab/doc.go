// Package crypttab reads /etc/crypttab and the luks.* words of the kernel command
// line as systemd reads them: grammar, options with their failure classes, numbers,
// booleans and time spans. It opens no volume and uses the standard library only.
//
// Two programs read crypttab under systemd: the generator splits the file into
// fields, and PID 1 decodes C escapes in what the generator wrote into the unit,
// before systemd-cryptsetup sees it. [Parse] does both, so that an [Entry] holds
// what systemd-cryptsetup would get as its arguments.
//
// crypttab is trusted as far as its owner is: see [ReadTrusted].
package crypttab
