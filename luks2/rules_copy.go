package luks2

import (
	"bytes"
	"crypto/subtle"
	"fmt"

	"luksmith/luks2/internal/hashes"
)

// bad makes the error of a rule about a copy. at counts from the copy's start.
func (c *headerCopy) bad(at int, field, format string, args ...any) error {
	return &FormatError{c.index, int64(c.at) + int64(at), field, fmt.Sprintf(format, args...)}
}

func magicIsRight(c *headerCopy) error {
	if c.bin.magic() != c.wantMagic() {
		return c.bad(offMagic, "magic", "is %q", c.bin.magic())
	}
	return nil
}

func versionIsTwo(c *headerCopy) error {
	if v := c.bin.version(); v != 2 {
		return c.bad(offVersion, "version", "is %d instead of 2", v)
	}
	return nil
}

func offsetIsOwnPlace(c *headerCopy) error {
	if off := c.bin.offset(); off != c.at {
		return c.bad(offHdrOffset, "hdr_offset", "is %#x, but the copy stands at %#x", off, c.at)
	}
	return nil
}

func sizeIsOneOfNine(c *headerCopy) error {
	if n := c.bin.size(); !knownSize(n) {
		return c.bad(offHdrSize, "hdr_size", "%d bytes is not a size of a LUKS2 header", n)
	}
	return nil
}

func secondaryFollowsPrimary(c *headerCopy) error {
	if n := c.bin.size(); c.index == 1 && n != c.at {
		return c.bad(offHdrSize, "hdr_size", "is %#x, but the secondary copy stands at %#x", n, c.at)
	}
	return nil
}

func checksumAlgorithmIsKnown(c *headerCopy) error {
	if _, ok := hashes.ByName(c.bin.csumAlg()); !ok {
		return c.bad(offCsumAlg, "csum_alg", "hash %q is not built in", c.bin.csumAlg())
	}
	return nil
}

func checksumMatches(c *headerCopy) error {
	sum := c.bin.checksum(c.area)
	if sum != nil && subtle.ConstantTimeCompare(sum, c.bin.csum()[:len(sum)]) != 1 {
		return c.bad(offCsum, "csum", "checksum mismatch")
	}
	return nil
}

func jsonOpensWithBrace(c *headerCopy) error {
	if c.area[0] != '{' {
		return c.bad(binarySize, "JSON area", "starts with %q instead of '{'", c.area[0])
	}
	return nil
}

func jsonEndsWithNUL(c *headerCopy) error {
	if c.jsonLen() == len(c.area) {
		return c.bad(binarySize+c.jsonLen(), "JSON area", "text fills the area and is not NUL-terminated")
	}
	return nil
}

func restOfAreaIsZero(c *headerCopy) error {
	tail := c.area[c.jsonLen():]
	if len(tail) == 0 || tail[0] == 0 && bytes.Equal(tail[1:], tail[:len(tail)-1]) { // all as the first
		return nil
	}
	if n := len(tail) - len(bytes.TrimLeft(tail, "\x00")); n < len(tail) {
		return c.bad(binarySize+c.jsonLen()+n, "JSON area", "byte %#02x behind the text", tail[n])
	}
	return nil
}
