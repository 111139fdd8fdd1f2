package luks2

import (
	"cmp"
	"iter"
	"slices"
	"strconv"

	"luksmith/luks2/internal/jsondoc"
)

// view is the JSON document of one header copy, prepared for validation and
// decoding: members are looked up once, so that a hostile document of 4 MiB costs
// no more than its length. Where the document is malformed the view has less in
// it; saying so is the business of the rules.
type view struct {
	doc        *jsondoc.Doc
	root       jsondoc.Value
	hdrSize    uint64 // of a copy, from the binary header
	deviceSize uint64

	keyslots, tokens, segments, digests section
	config                              jsondoc.Value
	mandatory                           jsondoc.Value // config.requirements.mandatory

	keyslotDigests map[string]int // keyslot name: in how many digests
	digestSegments map[string]bool
	firstBackup    int // number of the first backup segment, or of segments
	requirement    requirementSet
}

// section is one of the top-level objects with numbered members.
type section struct {
	name    string
	object  jsondoc.Value
	objects []object       // in the order of the document
	byName  map[string]int // index in objects
	strange []string       // member names that are not numbers
}

// object is one numbered member.
type object struct {
	section string
	name    string // the number as it stands there
	id      int
	jsondoc.Value
}

// field is the name of a member of the object for messages.
func (o object) field(path ...string) string {
	s := o.section
	if o.name != "" { // config is not numbered
		s += "." + o.name
	}
	for _, p := range path {
		s += "." + p
	}
	return s
}

func newView(doc *jsondoc.Doc, hdrSize, deviceSize uint64) *view {
	v := &view{doc: doc, root: doc.Root(), hdrSize: hdrSize, deviceSize: deviceSize}
	v.keyslots = newSection(v.root, "keyslots")
	v.tokens = newSection(v.root, "tokens")
	v.segments = newSection(v.root, "segments")
	v.digests = newSection(v.root, "digests")
	v.config = v.root.Get("config")
	v.mandatory = v.config.At("requirements", "mandatory")
	v.indexDigests()
	v.firstBackup = len(v.segments.objects)
	for _, s := range v.segments.objects {
		if isBackup(s.Value) {
			v.firstBackup = min(v.firstBackup, s.id)
		}
	}
	v.requirement = newRequirementSet(v.mandatory)
	return v
}

func newSection(root jsondoc.Value, name string) section {
	s := section{name: name, object: root.Get(name), byName: make(map[string]int)}
	for key, value := range s.object.Members() {
		id, ok := number(key)
		if !ok {
			s.strange = append(s.strange, key)
			continue
		}
		o := object{name, key, id, value}
		if i, again := s.byName[key]; again {
			s.objects[i] = o // the last one counts
			continue
		}
		s.byName[key] = len(s.objects)
		s.objects = append(s.objects, o)
	}
	return s
}

// number reads a member name such as "0" or "31".
//
// Unlike libcryptsetup, which takes any digits and then finds only what %u
// prints, "01" and "" are not numbers: two readers would disagree about them.
func number(key string) (int, bool) {
	if key == "" || len(key) > 9 || len(key) > 1 && key[0] == '0' {
		return 0, false
	}
	for i := range len(key) {
		if key[i] < '0' || key[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.Atoi(key)
	return n, err == nil
}

// has reports whether the section has an object of that name.
func (s *section) has(name string) bool {
	i, ok := s.byName[name]
	return ok && s.objects[i].Kind() == jsondoc.Object
}

// get returns the object with a number.
func (s *section) get(id int) (object, bool) {
	i, ok := s.byName[strconv.Itoa(id)]
	if !ok {
		return object{}, false
	}
	return s.objects[i], true
}

// inOrder yields the objects by number.
func (s *section) inOrder() iter.Seq[object] {
	order := make([]*object, len(s.objects))
	for i := range s.objects {
		order[i] = &s.objects[i]
	}
	slices.SortStableFunc(order, func(a, b *object) int { return cmp.Compare(a.id, b.id) })
	return func(yield func(object) bool) {
		for _, o := range order {
			if !yield(*o) {
				return
			}
		}
	}
}

func (v *view) indexDigests() {
	v.keyslotDigests, v.digestSegments = make(map[string]int), make(map[string]bool)
	for _, d := range v.digests.objects {
		seen := make(map[string]bool)
		for e := range d.Get("keyslots").Elems() {
			if name, ok := e.Text(); ok && !seen[name] {
				seen[name] = true
				v.keyslotDigests[name]++
			}
		}
		for e := range d.Get("segments").Elems() {
			if name, ok := e.Text(); ok {
				v.digestSegments[name] = true
			}
		}
	}
}

// isBackup reports whether a segment only records what a re-encryption needs.
func isBackup(segment jsondoc.Value) bool {
	for e := range segment.Get("flags").Elems() {
		if s, ok := e.Text(); ok && len(s) >= 7 && s[:7] == "backup-" {
			return true
		}
	}
	return false
}
