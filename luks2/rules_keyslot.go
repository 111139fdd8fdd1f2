package luks2

import "luksmith/luks2/internal/jsondoc"

// Rules about keyslots and their areas: libcryptsetup LUKS2_keyslot_validate,
// hdr_validate_areas, validate_intervals, luks2_keyslot_validate,
// LUKS2_keyslots_validate.

func keyslotsIsObject(v *view) error       { return isSection(&v.keyslots) }
func keyslotNamesAreNumbers(v *view) error { return namesAreNumbers(&v.keyslots) }
func keyslotHasType(v *view) error         { return hasType(&v.keyslots) }

func keyslotHasKeySize(v *view) error {
	return each(&v.keyslots, func(o object) error { return must(o, jsondoc.Int, "key_size") })
}

func keyslotKeySizeIsUint32(v *view) error {
	return each(&v.keyslots, func(o object) error {
		if n, ok := o.Get("key_size").Int(); ok && !isUint32(o.Get("key_size")) {
			return wrong(o.Get("key_size"), o.field("key_size"), "%d is out of range", n)
		}
		return nil
	})
}

func keyslotHasArea(v *view) error {
	return each(&v.keyslots, func(o object) error { return must(o, jsondoc.Object, "area") })
}

func areaHasType(v *view) error {
	return each(&v.keyslots, func(o object) error { return mustText(o, "area", "type") })
}

func areaOffsetIsNumber(v *view) error {
	return each(&v.keyslots, func(o object) error { return mustDigits(o, "area", "offset") })
}

func areaSizeIsNumber(v *view) error {
	return each(&v.keyslots, func(o object) error { return mustDigits(o, "area", "size") })
}

// areas returns the places of those key areas whose place is known.
func (v *view) areas() []extent {
	var list []extent
	for _, o := range v.keyslots.objects {
		from, ok1 := o.At("area", "offset").Digits()
		length, ok2 := o.At("area", "size").Digits()
		if ok1 && ok2 {
			list = append(list, extent{o, from, length})
		}
	}
	return list
}

func eachArea(v *view, check func(e extent) error) error {
	for _, e := range v.areas() {
		if err := check(e); err != nil {
			return err
		}
	}
	return nil
}

func areaIsBehindHeaders(v *view) error {
	return eachArea(v, func(e extent) error {
		if e.from < 2*v.hdrSize {
			return wrong(e.At("area", "offset"), e.field("area", "offset"), "%d is inside the headers", e.from)
		}
		return nil
	})
}

func areaIsNotEmpty(v *view) error {
	return eachArea(v, func(e extent) error {
		if e.length == 0 {
			return wrong(e.At("area", "size"), e.field("area", "size"), "is zero")
		}
		return nil
	})
}

func areaEndDoesNotOverflow(v *view) error {
	return eachArea(v, func(e extent) error {
		if e.from+e.length < e.from {
			return wrong(e.At("area", "size"), e.field("area", "size"), "ends beyond 2^64")
		}
		return nil
	})
}

// areaIsInsideKeyslots leaves a sum beyond 2^64 to areaEndDoesNotOverflow.
func areaIsInsideKeyslots(v *view) error {
	limit := v.areasEnd()
	return eachArea(v, func(e extent) error {
		if e.from+e.length > limit {
			return wrong(e.At("area", "size"), e.field("area", "size"), "ends at %d, behind the keyslots area at %d", e.from+e.length, limit)
		}
		return nil
	})
}

func areasDoNotOverlap(v *view) error { return disjoint(v.areas(), "keyslot") }

// eachLUKS2 applies a check to the keyslots of the type "luks2".
func eachLUKS2(v *view, check func(o object) error) error { return eachOfType(v, "luks2", check) }

func eachOfType(v *view, slotType string, check func(o object) error) error {
	return each(&v.keyslots, func(o object) error {
		if !o.Get("type").Is(slotType) {
			return nil
		}
		return check(o)
	})
}

func luks2HasKDF(v *view) error {
	return eachLUKS2(v, func(o object) error { return must(o, jsondoc.Object, "kdf") })
}

func kdfHasType(v *view) error {
	return eachLUKS2(v, func(o object) error { return mustText(o, "kdf", "type") })
}

// pbkdf2IsComplete does not count the members: libcryptsetup takes more than the
// four for left over from another type and drops them, see dropLeftovers.
func pbkdf2IsComplete(v *view) error {
	return eachLUKS2(v, func(o object) error {
		if !o.At("kdf", "type").Is(string(KDFPBKDF2)) {
			return nil
		}
		return firstError(mustText(o, "kdf", "hash"), must(o, jsondoc.Int, "kdf", "iterations"), mustText(o, "kdf", "salt"))
	})
}

// argon2IsComplete: see pbkdf2IsComplete.
func argon2IsComplete(v *view) error {
	return eachLUKS2(v, func(o object) error {
		if t := o.At("kdf", "type"); !t.Is(string(KDFArgon2i)) && !t.Is(string(KDFArgon2id)) {
			return nil
		}
		return firstError(must(o, jsondoc.Int, "kdf", "time"), must(o, jsondoc.Int, "kdf", "memory"),
			must(o, jsondoc.Int, "kdf", "cpus"), mustText(o, "kdf", "salt"))
	})
}

func luks2HasAF(v *view) error {
	return eachLUKS2(v, func(o object) error { return must(o, jsondoc.Object, "af") })
}

func afTypeIsLUKS1(v *view) error {
	return eachLUKS2(v, func(o object) error {
		af := o.Get("af")
		if af.Kind() == jsondoc.Object && !af.Get("type").Is("luks1") {
			return wrong(af.Get("type"), o.field("af", "type"), "is not luks1")
		}
		return nil
	})
}

func afIsComplete(v *view) error {
	return eachLUKS2(v, func(o object) error {
		return firstError(mustText(o, "af", "hash"), must(o, jsondoc.Int, "af", "stripes"))
	})
}

func luks2AreaIsRaw(v *view) error {
	return eachLUKS2(v, func(o object) error {
		if t, ok := o.At("area", "type").Text(); ok && t != "" && t != "raw" {
			return wrong(o.At("area", "type"), o.field("area", "type"), "is %q instead of raw", t)
		}
		return nil
	})
}

func luks2AreaHasEncryption(v *view) error {
	return eachLUKS2(v, func(o object) error { return mustText(o, "area", "encryption") })
}

func luks2AreaHasKeySize(v *view) error {
	return eachLUKS2(v, func(o object) error { return must(o, jsondoc.Int, "area", "key_size") })
}

func luks2HasOneDigest(v *view) error {
	return eachLUKS2(v, func(o object) error {
		if n := v.keyslotDigests[o.name]; n != 1 {
			return wrong(o.Value, o.field(), "is named by %d digests instead of one", n)
		}
		return nil
	})
}
