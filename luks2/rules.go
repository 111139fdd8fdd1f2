package luks2

import (
	"fmt"

	"luksmith/luks2/internal/jsondoc"
)

// The rules that libcryptsetup 2.6 to 2.8 applies to a header copy, each a
// function of its own. For each one testdata/rules has a header that this rule
// alone rejects, so each function looks at one thing and passes what is another's
// to reject.
//
// Two of libcryptsetup's checks have no function because others imply them: the
// range of hdr_size and the set of allowed config.json_size both follow from the
// nine sizes of the binary header and the equality of the two.

// copyRule is a rule about a header copy before its JSON is read.
type copyRule struct {
	name  string
	check func(*headerCopy) error
}

// jsonRule is a rule about the JSON document.
type jsonRule struct {
	name  string
	check func(*view) error
}

// Binary header, libcryptsetup hdr_disk_sanity_check_pre.
var binaryRules = [...]copyRule{
	{"magic", magicIsRight},
	{"version", versionIsTwo},
	{"hdr-offset", offsetIsOwnPlace},
	{"hdr-size", sizeIsOneOfNine},
	{"secondary-size", secondaryFollowsPrimary},
}

// The copy as a whole: hdr_checksum_check.
var sumRules = [...]copyRule{
	{"checksum-algorithm", checksumAlgorithmIsKnown},
	{"checksum", checksumMatches},
}

// The text of the JSON area, once it is parsed: validate_json_area.
var areaRules = [...]copyRule{
	{"json-opening", jsonOpensWithBrace},
	{"json-nul", jsonEndsWithNUL},
	{"json-tail", restOfAreaIsZero},
}

// The document, in the order in which libcryptsetup's LUKS2_hdr_validate goes.
var jsonRules = [...]jsonRule{
	{"requirements-object", requirementsIsObject},
	{"mandatory-array", mandatoryIsArray},
	{"mandatory-strings", mandatoryHoldsStrings},
	{"mandatory-one-reencrypt", mandatoryHasOneReencryption},

	{"tokens-object", tokensIsObject},
	{"token-number", tokenNamesAreNumbers},
	{"token-type", tokenHasType},
	{"token-keyslots", tokenHasKeyslots},
	{"token-keyslots-strings", tokenKeyslotsAreStrings},
	{"token-keyslots-exist", tokenKeyslotsExist},

	{"digests-object", digestsIsObject},
	{"digest-number", digestNamesAreNumbers},
	{"digest-type", digestHasType},
	{"digest-keyslots", digestHasKeyslots},
	{"digest-keyslots-strings", digestKeyslotsAreStrings},
	{"digest-keyslots-exist", digestKeyslotsExist},
	{"digest-segments", digestHasSegments},
	{"digest-segments-strings", digestSegmentsAreStrings},
	{"digest-segments-exist", digestSegmentsExist},

	{"segments-object", segmentsIsObject},
	{"segments-empty", segmentsIsNotEmpty},
	{"segment-number", segmentNamesAreNumbers},
	{"segment-type", segmentHasType},
	{"segment-offset", segmentOffsetIsNumber},
	{"segment-offset-sector", segmentOffsetIsSectors},
	{"segment-size", segmentSizeIsNumber},
	{"segment-size-zero", segmentSizeIsNotZero},
	{"segment-size-sector", segmentSizeIsSectors},
	{"segment-flags", segmentFlagsIsArray},
	{"segment-flags-strings", segmentFlagsAreStrings},
	{"segment-iv-tweak", segmentIVTweakIsNumber},
	{"segment-encryption", segmentHasEncryption},
	{"segment-sector-size", segmentSectorSizeIsUint32},
	{"segment-sector-size-sector", segmentSectorSizeIsSectors},
	{"segment-size-aligned", segmentSizeFitsSectorSize},
	{"segment-integrity", segmentIntegrityIsObject},
	{"segment-integrity-members", segmentIntegrityIsComplete},
	{"segment-digest", segmentHasDigest},
	{"segment-opal-size", opalSizeIsFixed},
	{"segment-opal-number", opalHasNumber},
	{"segment-opal-key-size", opalHasKeySize},
	{"segment-opal-segment-size", opalSegmentSizeIsNumber},
	{"segment-opal-fits", opalSizeFitsSegment},
	{"segments-order", backupSegmentsComeLast},
	{"segments-regular", firstSegmentIsRegular},
	{"segments-gap", segmentsHaveNoGap},
	{"segments-dynamic", onlyLastSegmentIsDynamic},
	{"segments-overflow", segmentEndsDoNotOverflow},
	{"segments-overlap", segmentsDoNotOverlap},
	{"reencrypt-backups", reencryptionHasBackupSegments},
	{"reencrypt-segments", reencryptionSegmentsMatch},

	{"keyslots-object", keyslotsIsObject},
	{"keyslot-number", keyslotNamesAreNumbers},
	{"keyslot-type", keyslotHasType},
	{"keyslot-key-size", keyslotHasKeySize},
	{"keyslot-key-size-range", keyslotKeySizeIsUint32},

	{"config-object", configIsObject},
	{"config-json-size", jsonSizeIsNumber},
	{"config-keyslots-size", keyslotsSizeIsNumber},
	{"config-keyslots-size-aligned", keyslotsSizeIsAligned},
	{"config-keyslots-size-max", keyslotsSizeIsBounded},
	{"config-keyslots-size-fits", keyslotsEndBeforeData},
	{"config-flags", configFlagsIsArray},
	{"config-flags-strings", configFlagsAreStrings},

	{"area-object", keyslotHasArea},
	{"area-type", areaHasType},
	{"area-offset", areaOffsetIsNumber},
	{"area-size", areaSizeIsNumber},
	{"area-before-keyslots", areaIsBehindHeaders},
	{"area-size-zero", areaIsNotEmpty},
	{"area-overflow", areaEndDoesNotOverflow},
	{"area-behind-keyslots", areaIsInsideKeyslots},
	{"area-overlap", areasDoNotOverlap},

	{"config-json-size-equal", jsonSizeMatchesHeader},

	{"luks2-kdf", luks2HasKDF},
	{"luks2-kdf-type", kdfHasType},
	{"luks2-kdf-pbkdf2", pbkdf2IsComplete},
	{"luks2-kdf-argon2", argon2IsComplete},
	{"luks2-af", luks2HasAF},
	{"luks2-af-type", afTypeIsLUKS1},
	{"luks2-af-members", afIsComplete},
	{"luks2-area-type", luks2AreaIsRaw},
	{"luks2-area-encryption", luks2AreaHasEncryption},
	{"luks2-area-key-size", luks2AreaHasKeySize},
	{"luks2-one-digest", luks2HasOneDigest},
	{"reencrypt-mode", reencryptModeIsKnown},
	{"reencrypt-direction", reencryptDirectionIsKnown},
	{"reencrypt-key-size", reencryptKeySizeIsOne},
	{"reencrypt-checksum", reencryptChecksumIsComplete},
	{"reencrypt-shift", reencryptShiftIsSectors},
	{"reencrypt-missing", reencryptKeyslotExists},
	{"reencrypt-unasked", reencryptKeyslotIsRequired},
	{"reencrypt-single", reencryptKeyslotIsSingle},
}

// headerRules are about the copy that was chosen, libcryptsetup
// LUKS2_disk_hdr_read.
var headerRules = [...]jsonRule{
	{"device-size", headerFitsDevice},
}

// validator applies the rules. Its zero value applies all; tests leave one out.
type validator struct {
	without string
}

func (x validator) checkCopy(rules []copyRule, c *headerCopy) error {
	for _, r := range rules {
		if r.name == x.without {
			continue
		}
		if err := r.check(c); err != nil {
			return err
		}
	}
	return nil
}

func (x validator) checkJSON(rules []jsonRule, v *view) error {
	for _, r := range rules {
		if r.name == x.without {
			continue
		}
		if err := r.check(v); err != nil {
			return err
		}
	}
	return nil
}

// fault is what a JSON rule found; the reader knows in which copy.
type fault struct {
	at     int // bytes from the start of the JSON area
	field  string
	reason string
}

func (f *fault) Error() string { return f.field + ": " + f.reason }

// wrong makes a fault for the value that stands at the field, or should.
func wrong(v jsondoc.Value, field, format string, args ...any) error {
	return &fault{v.Offset(), field, fmt.Sprintf(format, args...)}
}

// each applies a check to every object of a section.
func each(s *section, check func(o object) error) error {
	for _, o := range s.objects {
		if err := check(o); err != nil {
			return err
		}
	}
	return nil
}

// isFilled reports whether a value is a string with something in it.
func isFilled(v jsondoc.Value) bool {
	s, ok := v.Text()
	return ok && s != ""
}

// must reports a member that is not of its kind. It passes when the value around
// it is not an object: that is another rule's finding.
func must(o object, kind jsondoc.Kind, path ...string) error {
	around, v := o.At(path[:len(path)-1]...), o.At(path...)
	if around.Kind() != jsondoc.Object || v.Kind() == kind {
		return nil
	}
	return wrong(v, o.field(path...), "%v instead of %v", v.Kind(), kind)
}

// mustText is must for a string that is not empty.
func mustText(o object, path ...string) error {
	around, v := o.At(path[:len(path)-1]...), o.At(path...)
	if around.Kind() != jsondoc.Object || isFilled(v) {
		return nil
	}
	return wrong(v, o.field(path...), "no text")
}

// mustDigits is must for a 64-bit number, which LUKS2 writes as a string.
func mustDigits(o object, path ...string) error {
	around, v := o.At(path[:len(path)-1]...), o.At(path...)
	if _, ok := v.Digits(); around.Kind() != jsondoc.Object || ok {
		return nil
	}
	return wrong(v, o.field(path...), "no string of digits below 2^64")
}

// isUint32 reports whether an integer fits 32 bits.
func isUint32(v jsondoc.Value) bool {
	n, ok := v.Int()
	return ok && n >= 0 && n <= 1<<32-1
}

// firstError returns the first error of several checks.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
