package luks2

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"luksmith/luks2/internal/jsondoc"
)

// Rules about segments: libcryptsetup hdr_validate_segments,
// hdr_validate_crypt_segment, validate_segment_intervals.

const sectorSize = 512

// sizeDynamic in a segment means "to the end of the device".
const sizeDynamic = "dynamic"

func segmentsIsObject(v *view) error       { return isSection(&v.segments) }
func segmentNamesAreNumbers(v *view) error { return namesAreNumbers(&v.segments) }
func segmentHasType(v *view) error         { return hasType(&v.segments) }

func segmentsIsNotEmpty(v *view) error {
	if v.segments.object.Kind() == jsondoc.Object && v.segments.object.Len() == 0 {
		return wrong(v.segments.object, "segments", "is empty")
	}
	return nil
}

func segmentOffsetIsNumber(v *view) error {
	return each(&v.segments, func(o object) error { return mustDigits(o, "offset") })
}

func segmentOffsetIsSectors(v *view) error {
	return each(&v.segments, func(o object) error {
		if n, _ := o.Get("offset").Digits(); n%sectorSize != 0 {
			return wrong(o.Get("offset"), o.field("offset"), "%d is not a multiple of 512", n)
		}
		return nil
	})
}

func segmentSizeIsNumber(v *view) error {
	return each(&v.segments, func(o object) error {
		if o.Get("size").Is(sizeDynamic) {
			return nil
		}
		return mustDigits(o, "size")
	})
}

func segmentSizeIsNotZero(v *view) error {
	return each(&v.segments, func(o object) error {
		if n, ok := o.Get("size").Digits(); ok && n == 0 {
			return wrong(o.Get("size"), o.field("size"), "is zero")
		}
		return nil
	})
}

func segmentSizeIsSectors(v *view) error {
	return each(&v.segments, func(o object) error {
		if n, _ := o.Get("size").Digits(); n%sectorSize != 0 {
			return wrong(o.Get("size"), o.field("size"), "%d is not a multiple of 512", n)
		}
		return nil
	})
}

func segmentFlagsIsArray(v *view) error {
	return each(&v.segments, func(o object) error {
		if o.Get("flags").Kind() == jsondoc.Missing {
			return nil
		}
		return must(o, jsondoc.Array, "flags")
	})
}

func segmentFlagsAreStrings(v *view) error {
	return each(&v.segments, func(o object) error { return stringsOnly(o.Get("flags"), o.field("flags")) })
}

// eachCrypt applies a check to the segments that dm-crypt maps.
func eachCrypt(v *view, check func(o object) error) error {
	return each(&v.segments, func(o object) error {
		if t := o.Get("type"); !t.Is("crypt") && !t.Is("hw-opal-crypt") {
			return nil
		}
		return check(o)
	})
}

func segmentIVTweakIsNumber(v *view) error {
	return eachCrypt(v, func(o object) error { return mustDigits(o, "iv_tweak") })
}

func segmentHasEncryption(v *view) error {
	return eachCrypt(v, func(o object) error { return mustText(o, "encryption") })
}

func segmentSectorSizeIsUint32(v *view) error {
	return eachCrypt(v, func(o object) error {
		if isUint32(o.Get("sector_size")) {
			return nil
		}
		return wrong(o.Get("sector_size"), o.field("sector_size"), "no integer of 32 bits")
	})
}

func segmentSectorSizeIsSectors(v *view) error {
	return eachCrypt(v, func(o object) error {
		if n, ok := o.Get("sector_size").Int(); ok && (n == 0 || n%sectorSize != 0) {
			return wrong(o.Get("sector_size"), o.field("sector_size"), "%d is not a multiple of 512", n)
		}
		return nil
	})
}

func segmentSizeFitsSectorSize(v *view) error {
	return eachCrypt(v, func(o object) error {
		size, _ := o.Get("size").Digits()
		if n, _ := o.Get("sector_size").Int(); n > 0 && size%uint64(n) != 0 {
			return wrong(o.Get("size"), o.field("size"), "%d is not a multiple of the sector size %d", size, n)
		}
		return nil
	})
}

func segmentIntegrityIsObject(v *view) error {
	return eachCrypt(v, func(o object) error {
		if o.Get("integrity").Kind() == jsondoc.Missing {
			return nil
		}
		return must(o, jsondoc.Object, "integrity")
	})
}

func segmentIntegrityIsComplete(v *view) error {
	return eachCrypt(v, func(o object) error {
		return firstError(mustText(o, "integrity", "type"), mustText(o, "integrity", "journal_encryption"),
			mustText(o, "integrity", "journal_integrity"))
	})
}

func segmentHasDigest(v *view) error {
	return eachCrypt(v, func(o object) error {
		if !v.digestSegments[o.name] {
			return wrong(o.Value, o.field(), "no digest names this segment")
		}
		return nil
	})
}

// eachOpal applies a check to the segments that a self-encrypting drive has a
// part in, which libcryptsetup knows since 2.7.
func eachOpal(v *view, check func(o object) error) error {
	return each(&v.segments, func(o object) error {
		if t, _ := o.Get("type").Text(); !strings.HasPrefix(t, "hw-opal") {
			return nil
		}
		return check(o)
	})
}

func opalSizeIsFixed(v *view) error {
	return eachOpal(v, func(o object) error {
		if o.Get("size").Is(sizeDynamic) {
			return wrong(o.Get("size"), o.field("size"), "an OPAL segment must have a fixed size")
		}
		return nil
	})
}

func opalHasNumber(v *view) error {
	return eachOpal(v, func(o object) error { return must(o, jsondoc.Int, "opal_segment_number") })
}

func opalHasKeySize(v *view) error {
	return eachOpal(v, func(o object) error { return must(o, jsondoc.Int, "opal_key_size") })
}

func opalSegmentSizeIsNumber(v *view) error {
	return eachOpal(v, func(o object) error {
		if n, ok := o.Get("opal_segment_size").Digits(); ok && n == 0 {
			return wrong(o.Get("opal_segment_size"), o.field("opal_segment_size"), "is zero")
		}
		return mustDigits(o, "opal_segment_size")
	})
}

func opalSizeFitsSegment(v *view) error {
	return eachOpal(v, func(o object) error {
		size, _ := o.Get("size").Digits()
		if n, ok := o.Get("opal_segment_size").Digits(); ok && size > n {
			return wrong(o.Get("size"), o.field("size"), "%d is larger than the OPAL range of %d", size, n)
		}
		return nil
	})
}

// backupSegmentsComeLast is, unlike in libcryptsetup, independent of the order of
// the members.
func backupSegmentsComeLast(v *view) error {
	return each(&v.segments, func(o object) error {
		if !isBackup(o.Value) && v.hasBackup() && o.id > v.firstBackup {
			return wrong(o.Value, o.field(), "stands behind backup segment %d", v.firstBackup)
		}
		return nil
	})
}

func firstSegmentIsRegular(v *view) error {
	if v.hasBackup() && v.firstBackup == 0 {
		return wrong(v.segments.object, "segments", "no regular segment")
	}
	return nil
}

func (v *view) hasBackup() bool {
	o, ok := v.segments.get(v.firstBackup)
	return ok && isBackup(o.Value)
}

func segmentsHaveNoGap(v *view) error {
	for i := range v.segments.objects {
		if _, ok := v.segments.get(i); !ok {
			return wrong(v.segments.object, "segments", "number %d is missing", i)
		}
	}
	return nil
}

// extent is a part of the device.
type extent struct {
	object
	from, length uint64
}

// end is the first byte behind, at most 2^64-1.
func (e extent) end() uint64 {
	if e.length > math.MaxUint64-e.from {
		return math.MaxUint64
	}
	return e.from + e.length
}

// overflows reports an end beyond 2^64.
func (e extent) overflows() bool {
	return e.length != math.MaxUint64 && e.length > math.MaxUint64-e.from
}

// byPlace returns extents in the order in which they begin. Pointers are sorted, since
// the code for that is there already.
func byPlace(list []extent) []extent {
	order := make([]*extent, len(list))
	for i := range list {
		order[i] = &list[i]
	}
	slices.SortStableFunc(order, func(a, b *extent) int { return cmp.Compare(a.from, b.from) })
	sorted := make([]extent, len(list))
	for i, e := range order {
		sorted[i] = *e
	}
	return sorted
}

// regular returns the places of the regular segments by number.
func (v *view) regular() []extent {
	var list []extent
	for i := range v.firstBackup {
		o, ok := v.segments.get(i)
		if !ok {
			continue
		}
		e := extent{object: o, length: math.MaxUint64}
		e.from, _ = o.Get("offset").Digits()
		if n, ok := o.Get("size").Digits(); ok && n != 0 {
			e.length = n
		}
		list = append(list, e)
	}
	return list
}

func onlyLastSegmentIsDynamic(v *view) error {
	list := v.regular()
	for i, e := range list {
		if e.length == math.MaxUint64 && i < len(list)-1 {
			return wrong(e.Get("size"), e.field("size"), "only the last regular segment may be dynamic")
		}
	}
	return nil
}

// segmentEndsDoNotOverflow passes a single segment, as libcryptsetup does.
func segmentEndsDoNotOverflow(v *view) error {
	list := v.regular()
	for _, e := range list {
		if len(list) > 1 && e.overflows() {
			return wrong(e.Get("size"), e.field("size"), "ends beyond 2^64")
		}
	}
	return nil
}

func segmentsDoNotOverlap(v *view) error { return disjoint(v.regular(), "segment") }

// disjoint reports two extents that share a byte.
func disjoint(list []extent, what string) error {
	list = byPlace(list)
	for i := 1; i < len(list); i++ {
		if a, b := list[i-1], list[i]; b.from < a.end() || a.from == b.from {
			return wrong(b.Value, b.field(), "overlaps %s %s", what, a.name)
		}
	}
	return nil
}
