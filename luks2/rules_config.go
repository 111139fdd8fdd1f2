package luks2

import (
	"math"

	"luksmith/luks2/internal/jsondoc"
)

// Rules about config and the device: libcryptsetup hdr_validate_config,
// hdr_validate_json_size, device_check_size.

const (
	keyslotsAlignment = 4096
	maxKeyslotsSize   = 128 << 20
)

// configObject makes the rules about sections usable for the one object that is
// not numbered.
func (v *view) configObject() object { return object{section: "config", Value: v.config} }

func configIsObject(v *view) error {
	if k := v.config.Kind(); k != jsondoc.Object {
		return wrong(v.config, "config", "%v instead of an object", k)
	}
	return nil
}

// jsonSizeIsNumber, unlike libcryptsetup's strtoull, takes no sign or space.
func jsonSizeIsNumber(v *view) error { return mustDigits(v.configObject(), "json_size") }

// keyslotsSizeIsNumber: see jsonSizeIsNumber.
func keyslotsSizeIsNumber(v *view) error { return mustDigits(v.configObject(), "keyslots_size") }

func (v *view) keyslotsSize() uint64 {
	n, _ := v.config.Get("keyslots_size").Digits()
	return n
}

// areasEnd is the first byte behind the keyslots area.
func (v *view) areasEnd() uint64 { return 2*v.hdrSize + v.keyslotsSize() }

func (v *view) badKeyslotsSize(format string, args ...any) error {
	return wrong(v.config.Get("keyslots_size"), "config.keyslots_size", format, args...)
}

func keyslotsSizeIsAligned(v *view) error {
	if n := v.keyslotsSize(); n%keyslotsAlignment != 0 {
		return v.badKeyslotsSize("%d is not a multiple of 4096", n)
	}
	return nil
}

func keyslotsSizeIsBounded(v *view) error {
	if n := v.keyslotsSize(); n > maxKeyslotsSize {
		return v.badKeyslotsSize("%d is more than 128 MiB", n)
	}
	return nil
}

// keyslotsEndBeforeData passes a data offset of 0, which means a detached header.
func keyslotsEndBeforeData(v *view) error {
	data := v.dataOffset()
	if n := v.keyslotsSize(); data != 0 && (data < n || data-n < 2*v.hdrSize) {
		return v.badKeyslotsSize("%d bytes behind the headers reach into the data at %d", n, data)
	}
	return nil
}

// dataOffset is the lowest offset of a regular segment, 2^64-1 if there is none.
func (v *view) dataOffset() uint64 {
	lowest := uint64(math.MaxUint64)
	for _, o := range v.segments.objects {
		if !isBackup(o.Value) {
			n, _ := o.Get("offset").Digits()
			lowest = min(lowest, n)
		}
	}
	return lowest
}

func configFlagsIsArray(v *view) error {
	if f := v.config.Get("flags"); f.Kind() != jsondoc.Missing && f.Kind() != jsondoc.Array {
		return wrong(f, "config.flags", "%v instead of an array", f.Kind())
	}
	return nil
}

func configFlagsAreStrings(v *view) error { return stringsOnly(v.config.Get("flags"), "config.flags") }

func jsonSizeMatchesHeader(v *view) error {
	if n, ok := v.config.Get("json_size").Digits(); ok && n != v.hdrSize-binarySize {
		return wrong(v.config.Get("json_size"), "config.json_size", "%d does not match the binary header, which leaves %d", n, v.hdrSize-binarySize)
	}
	return nil
}

func headerFitsDevice(v *view) error {
	if end := v.areasEnd(); end > v.deviceSize {
		return wrong(v.config.Get("keyslots_size"), "config.keyslots_size", "header and key areas take %d bytes, the device has %d", end, v.deviceSize)
	}
	return nil
}
