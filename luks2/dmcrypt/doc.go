// Package dmcrypt maps LUKS volumes through the kernel's dm-crypt, and takes the
// mappings away again.
//
// A mapping is exactly what libcryptsetup makes of the same header: the same
// table, the same UUID, so that `cryptsetup status` and `cryptsetup close`, udev's
// rules and systemd work on it. The key of a LUKS2 volume goes to the kernel as a
// logon key in the thread keyring of one locked OS thread, which is gone when
// [Attach] returns; the table names it and does not contain it. Either all of a
// mapping is there when Attach returns, or nothing.
//
// Where udevd runs, Attach waits until it has made the links, as libdevmapper
// does. Where it does not, the nodes in /dev/mapper are made here, named as
// libdevmapper names them.
//
// Not supported, and refused with an error that says so: authenticated encryption
// (dm-integrity), several segments, self-encrypting drives.
package dmcrypt
