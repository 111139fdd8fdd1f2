package jsondoc

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
)

func parse(t testing.TB, text string) *Doc {
	t.Helper()
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

func TestEditsKeepEverythingElse(t *testing.T) {
	const odd = "{ \"a\" : 1.50,\n\t\"A\":{\"a\":[null]} , \"b\":[ \"1\" , \"2\" ],\"a\\/\":-0E+1 }"
	for _, c := range []struct {
		name string
		edit func(d *Doc) error
		want string
	}{
		{"change", func(d *Doc) error { return d.Set([]byte(`"x"`), "a") }, strings.Replace(odd, "1.50", `"x"`, 1)},
		{"inside", func(d *Doc) error { return d.Set([]byte(`{}`), "A", "a") }, strings.Replace(odd, "[null]", `{}`, 1)},
		{"add", func(d *Doc) error { return d.Set([]byte(`7`), "c") }, strings.Replace(odd, "-0E+1", `-0E+1,"c":7`, 1)},
		{"add to nested", func(d *Doc) error { return d.Set([]byte(`7`), "A", "b") }, strings.Replace(odd, "[null]", `[null],"b":7`, 1)},
		{"escaped name", func(d *Doc) error { return d.Set([]byte(`7`), "a/") }, strings.Replace(odd, "-0E+1", `7`, 1)},
		{"append", func(d *Doc) error { return d.Append([]byte(`"3"`), "b") }, strings.Replace(odd, `"2"`, `"2","3"`, 1)},
		{"delete first", func(d *Doc) error { _, err := d.Delete("a"); return err }, "{" + odd[strings.Index(odd, `"A"`):]},
		{"delete last", func(d *Doc) error { _, err := d.Delete("a/"); return err }, strings.Replace(odd, `,"a\/":-0E+1`, "", 1)},
		{"delete middle", func(d *Doc) error { _, err := d.Delete("b"); return err }, strings.Replace(odd, ` , "b":[ "1" , "2" ]`, "", 1)},
		{"delete nothing", func(d *Doc) error { _, err := d.Delete("B"); return err }, odd},
		{"string", func(d *Doc) error { _, err := d.DeleteString("2", "b"); return err }, strings.Replace(odd, ` , "2"`, "", 1)},
		{"first string", func(d *Doc) error { _, err := d.DeleteString("1", "b"); return err }, strings.Replace(odd, `[ "1" , "2"`, `["2"`, 1)},
	} {
		d := parse(t, odd)
		if err := c.edit(d); err != nil || string(d.Bytes()) != c.want {
			t.Errorf("%s: %v\n got %s\nwant %s", c.name, err, d.Bytes(), c.want)
		}
	}
}

func TestEditsOfEmptyLists(t *testing.T) {
	d := parse(t, `{"o":{},"a":[]}`)
	for _, err := range []error{d.Set([]byte("1"), "o", "x"), d.Append([]byte("1"), "a"), d.Append([]byte("2"), "a")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := string(d.Bytes()); got != `{"o":{"x":1},"a":[1,2]}` {
		t.Error(got)
	}
	if ok, err := d.Delete("o", "x"); !ok || err != nil || string(d.Root().Get("o").Raw()) != "{}" {
		t.Errorf("%v %v %s", ok, err, d.Bytes())
	}
}

func TestRepeatedNames(t *testing.T) {
	d := parse(t, `{"a":1,"b":2,"a":3}`)
	if n, _ := d.Root().Get("a").Int(); n != 3 || d.Root().Len() != 3 || len(d.Root().Effective()) != 2 {
		t.Errorf("the last one does not count: %d", n)
	}
	if err := d.Set([]byte("4"), "a"); err != nil || string(d.Bytes()) != `{"a":1,"b":2,"a":4}` {
		t.Errorf("%v %s", err, d.Bytes())
	}
	if ok, err := d.Delete("a"); !ok || err != nil || string(d.Bytes()) != `{"b":2}` {
		t.Errorf("%v %v %s", ok, err, d.Bytes())
	}
}

func TestEditsThatAreRefused(t *testing.T) {
	const text = `{"a":{"b":1},"c":[1]}`
	for name, edit := range map[string]func(d *Doc) error{
		"injection":       func(d *Doc) error { return d.Set([]byte(`1,"x":2`), "a") },
		"append two":      func(d *Doc) error { return d.Append([]byte(`1,2`), "c") },
		"nothing":         func(d *Doc) error { return d.Set(nil, "a") },
		"no object":       func(d *Doc) error { return d.Set([]byte("1"), "c", "x") },
		"missing object":  func(d *Doc) error { return d.Set([]byte("1"), "x", "y") },
		"no array":        func(d *Doc) error { return d.Append([]byte("1"), "a") },
		"delete nowhere":  func(d *Doc) error { _, err := d.Delete("x", "y"); return err },
		"strings nowhere": func(d *Doc) error { _, err := d.DeleteString("y", "a"); return err },
	} {
		d := parse(t, text)
		if err := edit(d); err == nil || string(d.Bytes()) != text {
			t.Errorf("%s: %v, document %s", name, err, d.Bytes())
		}
	}
}

func TestCloneIsIndependent(t *testing.T) {
	d := parse(t, `{"a":1}`)
	c := d.Clone()
	if err := c.Set([]byte("2"), "a"); err != nil || string(d.Bytes()) != `{"a":1}` {
		t.Errorf("%v %s", err, d.Bytes())
	}
}

func TestValues(t *testing.T) {
	d := parse(t, `{"i":-5,"big":99999999999999999999,"small":-99999999999999999999,"r":1.0,"s":"\u00e9\n\ud83d\ude00\ud800x","nul":"a\u0000","n":"18446744073709551615","t":true,"z":null,"l":["a","b"]}`)
	r := d.Root()
	for name, want := range map[string]int64{"i": -5, "big": math.MaxInt64, "small": math.MinInt64} {
		if n, ok := r.Get(name).Int(); !ok || n != want {
			t.Errorf("%s: %d %v", name, n, ok)
		}
	}
	if _, ok := r.Get("r").Int(); ok || r.Get("r").Kind() != Real {
		t.Error("1.0 is taken for an integer")
	}
	if s, _ := r.Get("s").Text(); s != "é\n😀\ufffdx" {
		t.Errorf("%q", s)
	}
	if _, ok := r.Get("nul").Text(); ok {
		t.Error("a string with NUL is a text")
	}
	if n, ok := r.Get("n").Digits(); !ok || n != math.MaxUint64 {
		t.Errorf("%d %v", n, ok)
	}
	for _, bad := range []string{`"-1"`, `"+1"`, `" 1"`, `""`, `"1x"`, `"18446744073709551616"`, `1`, `"0x1"`, `"1_0"`} {
		if _, ok := parse(t, bad).Root().Digits(); ok {
			t.Errorf("%s is taken for digits", bad)
		}
	}
	if !r.Get("l").HasString("b") || r.Get("l").HasString("c") || r.Get("i").HasString("a") || !r.Get("s").Is("é\n😀\ufffdx") {
		t.Error("HasString or Is")
	}
	if v := r.At("x", "y"); v.Kind() != Missing || v.Raw() != nil || v.Len() != 0 || v.Offset() != 0 || v.Get("z").Kind() != Missing {
		t.Error("a missing value has something")
	}
}

func TestLimits(t *testing.T) {
	for name, text := range map[string]string{
		"depth":  strings.Repeat("[", 33) + strings.Repeat("]", 33),
		"values": "[" + strings.Repeat("1,", MaxValues) + "1]",
		"size":   `"` + strings.Repeat("x", MaxSize) + `"`,
	} {
		var syntax *SyntaxError
		if _, err := Parse([]byte(text)); !errors.As(err, &syntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
	parse(t, strings.Repeat("[", 32)+strings.Repeat("]", 32))
}

// nesting is the depth of a valid text.
func nesting(text []byte) int {
	depth, deepest := 0, 0
	dec := json.NewDecoder(bytes.NewReader(text))
	for {
		token, err := dec.Token()
		if err != nil {
			return deepest
		}
		switch token {
		case json.Delim('['), json.Delim('{'):
			depth++
		case json.Delim(']'), json.Delim('}'):
			depth--
			continue
		default:
			deepest = max(deepest, depth+1)
			continue
		}
		deepest = max(deepest, depth)
	}
}

// FuzzDocument compares with encoding/json what is accepted, and edits what is.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{`{}`, `{"a":[1,2.5,{"b":null}],"A":"\u00e9"}`, `[]`, `{"keyslots":["0"],"a":{"b":{}}}`, ` {"a" : true } `} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(bytes.Clone(text))
		if err != nil {
			checkRejected(t, text, err)
			return
		}
		if !json.Valid(text) || !bytes.Equal(d.Bytes(), text) {
			t.Fatalf("accepted %q", text)
		}
		for name, v := range d.Root().Members() {
			edit(t, d, name, v)
		}
	})
}

// checkRejected knows why a text may be rejected that encoding/json accepts: NUL in
// a name, depth, and white space at the end, which libcryptsetup rejects too.
func checkRejected(t *testing.T, text []byte, err error) {
	t.Helper()
	if !json.Valid(text) || bytes.Contains(text, []byte(`\u0000`)) || nesting(text) > MaxDepth {
		return
	}
	trimmed := bytes.TrimRight(text, " \t\r\n")
	if _, again := Parse(trimmed); again != nil || len(trimmed) == len(text) {
		t.Fatalf("rejected %q: %v", text, err)
	}
}

// edit sets a member to what it is, then removes it.
func edit(t *testing.T, d *Doc, name string, v Value) {
	t.Helper()
	c := d.Clone()
	if err := c.Set(bytes.Clone(d.Root().Get(name).Raw()), name); err != nil || !bytes.Equal(c.Bytes(), d.Bytes()) {
		t.Fatalf("setting %q to itself: %v, %q", name, err, c.Bytes())
	}
	if ok, err := c.Delete(name); err != nil || !ok || c.Root().Get(name).Kind() != Missing || !json.Valid(c.Bytes()) {
		t.Fatalf("deleting %q: %v, %q", name, err, c.Bytes())
	}
	if err := c.Set(v.Raw(), name); err != nil || !bytes.Equal(c.Root().Get(name).Raw(), v.Raw()) {
		t.Fatalf("adding %q: %v, %q", name, err, c.Bytes())
	}
}

func BenchmarkParse(b *testing.B) {
	text := []byte(`{"keyslots":{` + strings.Repeat(`"0":{"type":"luks2","key_size":64,"af":{"type":"luks1","stripes":4000,"hash":"sha256"}},`, 20) + `"1":{}}}`)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
