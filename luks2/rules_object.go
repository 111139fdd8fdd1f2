package luks2

import "luksmith/luks2/internal/jsondoc"

// Rules about tokens, digests and requirements: libcryptsetup
// hdr_validate_requirements, hdr_validate_tokens, hdr_validate_digests.

func requirementsIsObject(v *view) error {
	r := v.config.Get("requirements")
	if k := r.Kind(); k != jsondoc.Missing && k != jsondoc.Object {
		return wrong(r, "config.requirements", "%v instead of an object", k)
	}
	return nil
}

func mandatoryIsArray(v *view) error {
	if k := v.mandatory.Kind(); k != jsondoc.Missing && k != jsondoc.Array {
		return wrong(v.mandatory, "config.requirements.mandatory", "%v instead of an array", k)
	}
	return nil
}

func mandatoryHoldsStrings(v *view) error {
	return stringsOnly(v.mandatory, "config.requirements.mandatory")
}

func mandatoryHasOneReencryption(v *view) error {
	if v.requirement.candidates > 1 {
		return wrong(v.mandatory, "config.requirements.mandatory", "several versions of online re-encryption")
	}
	return nil
}

// stringsOnly reports an array element that is not a string. A NUL in a string
// counts as none: readers in C see it cut.
func stringsOnly(array jsondoc.Value, field string) error {
	for e := range array.Elems() {
		if _, ok := e.Text(); ok {
			continue
		}
		if e.Kind() == jsondoc.String {
			return wrong(e, field, "element has a NUL character")
		}
		return wrong(e, field, "element is %v instead of a string", e.Kind())
	}
	return nil
}

// referencesExist reports a string in an array that names no object of a section.
func referencesExist(array jsondoc.Value, s *section, field string) error {
	for e := range array.Elems() {
		if name, ok := e.Text(); ok && !s.has(name) {
			return wrong(e, field, "names %s %q, which does not exist", s.name[:len(s.name)-1], name)
		}
	}
	return nil
}

func isSection(s *section) error {
	if k := s.object.Kind(); k != jsondoc.Object {
		return wrong(s.object, s.name, "%v instead of an object", k)
	}
	return nil
}

func namesAreNumbers(s *section) error {
	if len(s.strange) > 0 {
		return wrong(s.object, s.name, "member name %q is not a number", s.strange[0])
	}
	return nil
}

// hasType reports an object of a section that is none or has no type.
func hasType(s *section) error {
	return each(s, func(o object) error {
		if o.Kind() != jsondoc.Object {
			return wrong(o.Value, o.field(), "%v instead of an object", o.Kind())
		}
		return mustText(o, "type")
	})
}

func tokensIsObject(v *view) error       { return isSection(&v.tokens) }
func tokenNamesAreNumbers(v *view) error { return namesAreNumbers(&v.tokens) }
func tokenHasType(v *view) error         { return hasType(&v.tokens) }

func tokenHasKeyslots(v *view) error {
	return each(&v.tokens, func(o object) error { return must(o, jsondoc.Array, "keyslots") })
}

func tokenKeyslotsAreStrings(v *view) error {
	return each(&v.tokens, func(o object) error { return stringsOnly(o.Get("keyslots"), o.field("keyslots")) })
}

func tokenKeyslotsExist(v *view) error {
	return each(&v.tokens, func(o object) error {
		return referencesExist(o.Get("keyslots"), &v.keyslots, o.field("keyslots"))
	})
}

func digestsIsObject(v *view) error       { return isSection(&v.digests) }
func digestNamesAreNumbers(v *view) error { return namesAreNumbers(&v.digests) }
func digestHasType(v *view) error         { return hasType(&v.digests) }

func digestHasKeyslots(v *view) error {
	return each(&v.digests, func(o object) error { return must(o, jsondoc.Array, "keyslots") })
}

func digestKeyslotsAreStrings(v *view) error {
	return each(&v.digests, func(o object) error { return stringsOnly(o.Get("keyslots"), o.field("keyslots")) })
}

func digestKeyslotsExist(v *view) error {
	return each(&v.digests, func(o object) error {
		return referencesExist(o.Get("keyslots"), &v.keyslots, o.field("keyslots"))
	})
}

func digestHasSegments(v *view) error {
	return each(&v.digests, func(o object) error { return must(o, jsondoc.Array, "segments") })
}

func digestSegmentsAreStrings(v *view) error {
	return each(&v.digests, func(o object) error { return stringsOnly(o.Get("segments"), o.field("segments")) })
}

func digestSegmentsExist(v *view) error {
	return each(&v.digests, func(o object) error {
		return referencesExist(o.Get("segments"), &v.segments, o.field("segments"))
	})
}
