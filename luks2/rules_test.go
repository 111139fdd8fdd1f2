package luks2

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// ruleCase is one paragraph of testdata/rules/rules.txt.
type ruleCase struct {
	rule    string
	craft   *craft
	lenient bool // the cryptsetup installed here need not reject it
}

func ruleCases(t *testing.T) []ruleCase {
	t.Helper()
	b, err := os.ReadFile("testdata/rules/rules.txt")
	if err != nil {
		t.Fatal(err)
	}
	var list []ruleCase
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != '\t':
			rule, base, _ := strings.Cut(line, " ")
			list = append(list, ruleCase{rule: rule, craft: newCraft(t, base)})
		default:
			list[len(list)-1].change(t, line[1:])
		}
	}
	return list
}

func (c *ruleCase) change(t *testing.T, line string) {
	t.Helper()
	word, rest, _ := strings.Cut(line, " ")
	var err error
	switch word {
	case "newer", "stricter":
		c.lenient = true
	case "-":
		_, err = c.craft.doc.Delete(strings.Split(rest, ".")...)
	case "at":
		err = addPatch(c.craft.before, rest)
	case "torn":
		err = addPatch(c.craft.after, strings.TrimPrefix(rest, "at "))
	case "only":
		c.craft.secondary, err = strconv.ParseUint(strings.TrimPrefix(rest, "secondary at "), 0, 64)
	case "device":
		c.craft.deviceSize, err = strconv.ParseInt(rest, 10, 64)
	case "tail":
		c.craft.behind = "\x00x"
	case "text":
		c.craft.text = strings.Replace(string(c.craft.doc.Bytes()), "{", rest, 1)
	case "full":
		text := string(c.craft.doc.Bytes())
		c.craft.text = "{" + strings.Repeat(" ", int(c.craft.size)-binarySize-len(text)) + text[1:]
	default:
		path, value, ok := strings.Cut(line, " = ")
		if !ok {
			t.Fatalf("rules.txt: what is %q?", line)
		}
		err = c.craft.doc.Set(json.RawMessage(value), strings.Split(path, ".")...)
	}
	if err != nil {
		t.Fatalf("rules.txt: %q: %v", line, err)
	}
	if size, ok := c.craft.before[offHdrSize]; ok {
		c.craft.size = uint64(size[6])<<8 | uint64(size[7])
	}
}

func addPatch(patches map[int]string, line string) error {
	at, digits, _ := strings.Cut(line, ": ")
	offset, err := strconv.ParseInt(at, 0, 32)
	if err != nil {
		return err
	}
	b, err := hex.DecodeString(digits)
	patches[int(offset)] = string(b)
	return err
}

// allRules are the names in the tables.
func allRules() []string {
	var names []string
	for _, table := range [][]copyRule{binaryRules[:], sumRules[:], areaRules[:]} {
		for _, r := range table {
			names = append(names, r.name)
		}
	}
	for _, table := range [][]jsonRule{jsonRules[:], headerRules[:]} {
		for _, r := range table {
			names = append(names, r.name)
		}
	}
	return names
}

// loadWithout reads an image by all rules but one.
func loadWithout(t *testing.T, path, rule string) error {
	t.Helper()
	f, err := openDevice(path, path, false)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	l, err := validator{without: rule}.load(f, f.size)
	if err == nil {
		l.header() // decodes whatever passes
	}
	return err
}

// TestEachRuleIsNeeded has a header for each rule that is rejected, that is
// accepted when the rule is left out, and that the installed cryptsetup rejects too.
func TestEachRuleIsNeeded(t *testing.T) {
	t.Parallel()
	shown := make(map[string]bool)
	for _, c := range ruleCases(t) {
		shown[c.rule] = true
		t.Run(c.rule, func(t *testing.T) {
			path := c.craft.write(t)
			err := loadWithout(t, path, "")
			if err == nil {
				t.Error("accepted")
			}
			var format *FormatError
			if c.rule != "magic" && !errors.As(err, &format) {
				t.Errorf("no FormatError: %v", err)
			}
			if err := loadWithout(t, path, c.rule); err != nil {
				t.Errorf("another rule rejects it too: %v", err)
			}
			if !c.lenient && cryptsetupAccepts(t, path) {
				t.Error("cryptsetup accepts it")
			}
		})
	}
	for _, name := range allRules() {
		if !shown[name] {
			t.Errorf("rule %s has no header in rules.txt", name)
		}
	}
}

func TestTheBasesOfTheRulesAreValid(t *testing.T) {
	t.Parallel()
	for _, base := range []string{"base", "linear", "opal", "reencrypt"} {
		path := newCraft(t, base).write(t)
		if err := loadWithout(t, path, ""); err != nil {
			t.Errorf("%s: %v", base, err)
		}
		if !cryptsetupAccepts(t, path) {
			t.Errorf("%s: cryptsetup rejects it", base)
		}
	}
}

func cryptsetupAccepts(t *testing.T, path string) bool {
	t.Helper()
	testenv.Need(t, "cryptsetup")
	return exec.Command("cryptsetup", "luksDump", path).Run() == nil
}
