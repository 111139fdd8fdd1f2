package luks2

import (
	"strings"
	"testing"
)

// verdict says who accepts a text: both, nobody, or only cryptsetup, whose json-c
// is lenient where no writer is.
type verdict int

const (
	both verdict = iota
	nobody
	lenient
)

// jsonTexts are members put into a token, with the measured verdict.
var jsonTexts = map[string]verdict{
	`"a":1`:                     both,
	`"a" : 1`:                   both,
	`"":1`:                      both,
	`"a":"x","a":2`:             both, // a repeated name: the last one counts
	`"a":{"b":1,"b":2}`:         both,
	`"a":1e5`:                   both,
	`"a":1E+5`:                  both,
	`"a":-0`:                    both,
	`"a":99999999999999999999`:  both,
	`"a":-99999999999999999999`: both,
	`"a":"x\u0000y"`:            both,
	`"a":"\ud83d\ude00"`:        both,
	`"a":"\ud800"`:              both,
	`"a":"\udc00x"`:             both,
	`"a":"\/"`:                  both,
	"\"a\":\"\xff\xfe\"":        both,
	"\"a\":\"\x7f\"":            both,
	`"a":` + strings.Repeat("[", 29) + strings.Repeat("]", 29):       both,
	`"a":` + strings.Repeat("[", 28) + "1" + strings.Repeat("]", 28): both,

	`"a":` + strings.Repeat("[", 30) + strings.Repeat("]", 30):       nobody,
	`"a":` + strings.Repeat("[", 29) + "1" + strings.Repeat("]", 29): nobody,
	`"a":+1`:       nobody,
	`"a":.5`:       nobody,
	`"a":-`:        nobody,
	`"a":nul`:      nobody,
	`"a":"\x"`:     nobody,
	`"a":"\u12"`:   nobody,
	`a:1`:          nobody,
	"\"a\"\f:1":    nobody,
	`"a":[1 2]`:    nobody,
	`"a":{"b" 2}`:  nobody,
	`"a":"x`:       nobody,
	`"a\u0000b":1`: lenient, // readers in C see "a"

	"\"a\":\"x\ty\"":   lenient,
	"\"a\":\"x\x01y\"": lenient,
	`"a":NaN`:          lenient,
	`"a":Infinity`:     lenient,
	`"a":-Infinity`:    lenient,
	`/* c */"a":1`:     lenient,
	`'a':1`:            lenient,
	`"a":'x'`:          lenient,
	`"a":[1,]`:         lenient,
	`"a":1,`:           lenient,
	`"a":01`:           lenient,
	`"a":1.`:           lenient,
	`"a":1e`:           lenient,
	`"a":TRUE`:         lenient,
	`"a":Null`:         lenient,
}

// documentChanges replace a piece of the base document.
var documentChanges = map[[2]string]verdict{
	{`"keyslots":{"0"`, `"keyslots":{"9":1},"keyslots":{"0"`}:                                             both,
	{`"tokens":{`, `"key\u0073lots":5,"tokens":{`}:                                                        nobody, // the same name, spelt with an escape
	{`"0":{"type":"systemd-recovery"`, `"0":{"type":"","keyslots":[]},"0":{"type":"systemd-recovery"`}:    both,
	{`"0":{"type":"systemd-recovery"`, `"0":{"type":"","type":"systemd-recovery"`}:                        both,
	{`"0":{"type":"systemd-recovery"`, `"0":{"Type":5,"Keyslots":{"a":[null]},"type":"systemd-recovery"`}: both,
	{`"offset":"32768"`, `"offset":"0032768"`}:                                                            both,
	{`"json_size":"12288"`, `"json_size":"0012288"`}:                                                      both,
	{`"tokens":{"0"`, `"tokens":{"99"`}:                                                                   both,
	{`"stripes":4000`, `"stripes":8000`}:                                                                  both,
	{`"time":4`, `"time":-4`}:                                                                             both,
	{`"time":4`, `"time":40000000000000`}:                                                                 both,
	{`"keyslots_size":"16740352"}}`, "\"keyslots_size\":\"16740352\"} }\n \t"}:                            both,
	{`"keyslots_size":"16740352"}}`, `"keyslots_size":"16740352"}} {}`}:                                   nobody,
	{`"keyslots":["1"]`, `"keyslots":["1","1"]`}:                                                          both,
	{`"keyslots":["0","1"]`, `"keyslots":["0","0","1"]`}:                                                  both,
	{`"time":4`, `"time":4.0`}:                                                                            nobody,
	{`"iterations":1000,"salt":"MDEy`, `"iterations":1000,"memory":5,"salt":"MDEy`}:                       both, // left over, cryptsetup drops it
	{`"json_size":"12288"`, `"json_size":" 12288"`}:                                                       lenient,
	{`"json_size":"12288"`, `"json_size":"+12288"`}:                                                       lenient,
	{`"tokens":{"0"`, `"tokens":{"00"`}:                                                                   lenient,
	{`"tokens":{"0"`, `"tokens":{""`}:                                                                     lenient,
	{`"tokens":{"0"`, `"tokens":{"99999999999"`}:                                                          lenient,
	{`"type":"systemd-recovery"`, `"type":"systemd\u0000-recovery"`}:                                      lenient,
	{`"keyslots":["1"]`, `"keyslots":["1\u0000"]`}:                                                        lenient,
	{`"json_size":"12288"`, `"json_size":"12288","flags":["a\u0000b"]`}:                                   lenient,
}

// TestDocumentsAsCryptsetupReadsThem judges texts as cryptsetup 2.6 with json-c
// does, but for leniencies that are listed.
func TestDocumentsAsCryptsetupReadsThem(t *testing.T) {
	t.Parallel()
	for text, want := range jsonTexts {
		checkDocument(t, `"tokens":{`, `"tokens":{"9":{"type":"x","keyslots":[],`+text+`},`, want)
	}
	for change, want := range documentChanges {
		checkDocument(t, change[0], change[1], want)
	}
}

func checkDocument(t *testing.T, from, to string, want verdict) {
	t.Helper()
	c := newCraft(t, "base")
	c.text = strings.Replace(string(c.doc.Bytes()), from, to, 1)
	if c.text == string(c.doc.Bytes()) {
		t.Fatalf("%q does not occur in the base document", from)
	}
	path := c.write(t)
	if err := loadWithout(t, path, ""); (err == nil) != (want == both) {
		t.Errorf("%.60q: we say %v", to, err)
	}
	if accepts := cryptsetupAccepts(t, path); accepts != (want != nobody) {
		t.Errorf("%.60q: cryptsetup accepts: %v", to, accepts)
	}
}
