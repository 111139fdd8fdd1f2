package crypttab

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const someUUID = "01234567-89ab-cdef-0123-456789abcdef"

func change(options ...string) *Change {
	return &Change{Match: func(e *Entry) bool { return e.IsAbout(someUUID) }, Name: "luks-" + someUUID, Device: "UUID=" + someUUID, Options: options, Grammar: toys}
}

func TestLineIsMergedInPlace(t *testing.T) {
	t.Parallel()
	const id = "UUID=" + someUUID
	for _, c := range []struct {
		line    string
		options []string
		want    string
	}{
		{"root " + id, []string{"toy-device=auto"}, "root " + id + " none toy-device=auto"},
		{"root\t" + id + "\t-", []string{"toy-device=auto"}, "root\t" + id + "\t-\ttoy-device=auto"},
		{"  root  " + id + "   none    -  ", []string{"discard"}, "  root  " + id + "   none    discard  "},
		{"root UUID=" + strings.ToUpper(someUUID) + " none luks,discard", []string{"toy-device=auto"}, "root UUID=" + strings.ToUpper(someUUID) + " none luks,discard,toy-device=auto"},
		{"root UUID=\"" + someUUID + "\" - luks", []string{"discard"}, "root UUID=\"" + someUUID + "\" - luks,discard"},
		{"root /dev/disk/by-uuid/" + someUUID + " - luks", []string{"discard"}, "root /dev/disk/by-uuid/" + someUUID + " - luks,discard"},
		{"root " + id + " - toy-device=/dev/x,discard", []string{"toy-device=auto"}, "root " + id + " - toy-device=auto,discard"},
		{"root " + id + " - toy-device=auto,discard", []string{"toy-device=auto"}, "root " + id + " - toy-device=auto,discard"},
		{"root " + id + " - tries=1,luks,tries=2", []string{"tries=5"}, "root " + id + " - tries=5,luks"},
		{"root " + id + " - allow-discards,nofail", []string{"discard", "fail"}, "root " + id + " - discard,fail"},
		{"root " + id + " - luks,", []string{"discard"}, "root " + id + " - luks,discard"},
		{"root " + id + ` - header=/a\,b,luks`, []string{"toy-device=/dev/a,b c"}, "root " + id + ` - header=/a\,b,luks,toy-device=/dev/a\,b\x20c`},
		{"root " + id + ` - header=/a\x20b`, []string{`header=/c\d`}, "root " + id + ` - header=/c\\\\d`},
		{"root " + id + " /key luks # a remark", []string{"discard"}, "root " + id + " /key luks,discard # a remark"},
		{"root " + id + " - frobnicate,x-foo.bar=1", []string{"discard"}, "root " + id + " - frobnicate,x-foo.bar=1,discard"},
		{"root " + id + " - toy-keys=a:b,luks", []string{"toy-keys=c"}, "root " + id + " - toy-keys=a:b:c,luks"},
		{"root " + id + " - toy-keys=a:b,luks", []string{"toy-keys=b"}, "root " + id + " - toy-keys=a:b,luks"},
		{"root " + id + " - toy-keys,luks", []string{"toy-keys=b"}, "root " + id + " - toy-keys=b,luks"},
		{"root " + id + " - toy-keys=b,luks", []string{"toy-keys=a:b"}, "root " + id + " - toy-keys=b:a,luks"},
		{"root " + id + " - toy-keys=b,luks", []string{"toy-keys=ab"}, "root " + id + " - toy-keys=b:ab,luks"},
		{"root " + id + " - luks", nil, "root " + id + " - luks"},
		{"root " + id, nil, "root " + id},
	} {
		const before, after = "# a comment\n\n\tother  /dev/other\tnone luks,, \r\n", "\n   # end\nlast /dev/last - x y z"
		text, changed, err := change(c.options...).Edit([]byte(before+c.line+after), "f")
		if err != nil || string(text) != before+c.want+after || changed.Line != 4 || changed.Old != c.line || changed.New != c.want {
			t.Errorf("%q + %q:\n%q, %+v, %v\nwant %q", c.line, c.options, text, changed, err, c.want)
		}
	}
}

func TestLineOfAVolumeWithoutOneIsAdded(t *testing.T) {
	t.Parallel()
	const line = "luks-" + someUUID + " UUID=" + someUUID + " none toy-device=auto,discard"
	for text, want := range map[string]string{"": line + "\n", "a /dev/a": "a /dev/a\n" + line + "\n", "# c\r\n": "# c\r\n" + line + "\r\n", "a /dev/a\n\n": "a /dev/a\n\n" + line + "\n"} {
		got, changed, err := change("toy-device=auto", "discard").Edit([]byte(text), "f")
		if err != nil || string(got) != want || changed.Old != "" || changed.New != line {
			t.Errorf("%q: %q, %+v, %v", text, got, changed, err)
		}
	}
	c := change()
	c.Name, c.Device, c.Key = "my disk", "/dev/disk/by-id/a b", "/the key"
	got, _, err := c.Edit(nil, "f")
	if err != nil || string(got) != `my\x20disk /dev/disk/by-id/a\x20b /the\x20key`+"\n" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestChangesThatWouldBeGuessesAreRefused(t *testing.T) {
	t.Parallel()
	const id = "UUID=" + someUUID
	for text, want := range map[string]string{
		"a " + id + "\nb " + id:              "f:2: line: more than one line is about the volume",
		"a " + id + " luks,discard":          `f:1: key: "luks,discard" is neither a path nor none`,
		"a " + id + ` - luks\x2cdiscard`:     "f:1: options: invalid value: ",
		"a " + id + " - header=/x,header=/y": "f:1: options: header=/y: invalid value",
	} {
		if _, _, err := change("discard").Edit([]byte(text), "f"); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	for option, want := range map[string]string{"frobnicate": "unknown option", "tries=x": "invalid value", "toy-name=bad": "invalid value", "discard,x": "unknown option", "toy-device": "unknown option"} {
		if _, _, err := change(option).Edit(nil, "f"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", option, err)
		}
	}
}

func TestFileIsReplacedInOneStepWithACopy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, link := filepath.Join(dir, "crypttab"), filepath.Join(dir, "link")
	const text = "root UUID=" + someUUID + " none luks # kept\n"
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o640), os.Symlink("crypttab", link)); err != nil {
		t.Fatal(err)
	}
	if _, err := change("discard").Preview(link); err != nil {
		t.Fatal(err)
	}
	if now, _ := os.ReadFile(path); string(now) != text {
		t.Errorf("a preview wrote %q", now)
	}
	changed, err := change("discard").Write(link)
	if err != nil {
		t.Fatal(err)
	}
	now, _ := os.ReadFile(path)
	kept, _ := os.ReadFile(changed.Copy)
	info, err := os.Stat(path)
	if want := strings.Replace(text, "luks", "luks,discard", 1); string(now) != want || string(kept) != text || err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%q, copy %q, %v, %v", now, kept, info.Mode(), err)
	}
	if again, err := change("discard").Write(link); err != nil || again.Copy != "" {
		t.Errorf("nothing to do: %+v, %v", again, err)
	}
	if changed, err := change("discard").Write(filepath.Join(dir, "new")); err != nil || changed.Copy != "" || changed.Line != 1 {
		t.Errorf("a new file: %+v, %v", changed, err)
	}
	files, _ := filepath.Glob(filepath.Join(dir, ".*"))
	if list, _ := os.ReadDir(dir); len(list) != 4 || len(files) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

func TestFileThatSomebodyElseWroteIsLeft(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "crypttab")
	c := change("discard")
	match := c.Match
	c.Match = func(e *Entry) bool {
		if err := os.WriteFile(path, []byte("other /dev/x\n"), 0o600); err != nil {
			t.Error(err)
		}
		return match(e)
	}
	if err := os.WriteFile(path, []byte("a UUID="+someUUID+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(path); !errors.Is(err, ErrChanged) {
		t.Errorf("%v", err)
	}
	if now, _ := os.ReadFile(path); string(now) != "other /dev/x\n" {
		t.Errorf("%q", now)
	}
}

func TestEntryIsAboutADeviceByAnyName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	device, link, other := filepath.Join(dir, "sda1"), filepath.Join(dir, "by-id"), filepath.Join(dir, "sdb1")
	if err := errors.Join(os.WriteFile(device, nil, 0o600), os.WriteFile(other, nil, 0o600), os.Symlink("sda1", link)); err != nil {
		t.Fatal(err)
	}
	about := func(source string) bool {
		return (&Entry{Source: ParseDeviceRef(source)}).IsAbout(someUUID, device)
	}
	for source, want := range map[string]bool{device: true, link: true, other: false, "UUID=" + someUUID: true, "UUID=01234567": false, "PARTUUID=" + someUUID: false, "/nonexistent": false} {
		if about(source) != want {
			t.Errorf("%s: %v", source, !want)
		}
	}
	if (&Entry{Source: ParseDeviceRef("UUID=")}).IsAbout("", "") {
		t.Error("an empty UUID is about every volume")
	}
}

// FuzzEdit wants the change to be there and everything else as it was.
func FuzzEdit(f *testing.F) {
	f.Add("# c\r\n a UUID="+someUUID+"\t- luks,tries=1 # x\nb /dev/b", "tries=3")
	f.Add("a UUID="+someUUID+" - toy-device=a\\,b", "toy-device=x,y z\\")
	f.Fuzz(func(t *testing.T, text, option string) {
		got, changed, err := change(option).Edit([]byte(text), "f")
		if err != nil {
			return
		}
		file, err := Parse(strings.NewReader(string(got)), "f")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(file.Entries, func(e Entry) bool { return e.Line == changed.Line })
		if i < 0 {
			t.Fatalf("%q: no line %d", got, changed.Line)
		}
		o, _, err := toys.ParseOptions(file.Entries[i].Options)
		if err != nil || !slices.Contains(o.Words, splitWord(option)) && splitWord(option).Name != "comment" && !strings.HasPrefix(option, "x-systemd.") {
			t.Errorf("%q + %q: %q has no %q: %v", text, option, changed.New, option, err)
		}
		if back := strings.Replace(string(got), changed.New, changed.Old, 1); changed.Old != "" && back != text {
			t.Errorf("%q became %q", text, got)
		}
	})
}
