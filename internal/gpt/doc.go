// Package gpt reads GUID partition tables, of disks and of images of disks, and
// knows which of their partitions the Discoverable Partitions Specification means:
// types by role and architecture, flags, and which of several versions is the newest.
//
// Everything that is read is untrusted. A bounded number of bytes is read, whatever
// stands there; names come back as they are on the disk and must be escaped before
// they reach a terminal.
package gpt
