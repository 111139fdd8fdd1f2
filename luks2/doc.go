// Package luks2 reads and changes LUKS2 headers: the binary header and its two
// copies, the JSON metadata, keyslots, digests and the volume key. It maps
// nothing; luks2/dmcrypt does.
//
// Everything on the device is untrusted. Opening a header never writes; a change
// is one transaction (see Device.Update) after which either the old or the new
// state is on the disk, whatever happens in between.
package luks2
