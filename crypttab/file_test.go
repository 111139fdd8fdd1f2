package crypttab

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"luksmith/internal/test/testenv"
)

func parse(t *testing.T, text string) *File {
	t.Helper()
	f, err := Parse(strings.NewReader(text), "crypttab")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func path(p string) DeviceRef { return DeviceRef{Value: p, Literal: p} }

func TestGrammar(t *testing.T) {
	t.Parallel()
	label := DeviceRef{Tag: TagLabel, Value: "stick", Literal: "stick"}
	for name, tt := range map[string]struct {
		text string
		want []Entry
	}{
		"two fields":          {"a /dev/b", []Entry{{Line: 1, Name: "a", Source: path("/dev/b")}}},
		"tabs and spaces":     {"\t a \t /dev/b\v-\fnone \r\n", []Entry{{Line: 1, Name: "a", Source: path("/dev/b")}}},
		"comments":            {"#x y\n  # x y\n\n \t\na#b /dev/c#d\n", []Entry{{Line: 5, Name: "a#b", Source: path("/dev/c#d")}}},
		"one field":           {"only\na /dev/b", []Entry{{Line: 2, Name: "a", Source: path("/dev/b")}}},
		"fifth field":         {"a /dev/b - luks, discard", []Entry{{Line: 1, Name: "a", Source: path("/dev/b"), Options: "luks"}}},
		"tag":                 {"a LABEL=stick", []Entry{{Line: 1, Name: "a", Source: label}}},
		"quoted tag":          {`a LABEL="stick"`, []Entry{{Line: 1, Name: "a", Source: label}}},
		"half quoted tag":     {`a LABEL="stick`, []Entry{{Line: 1, Name: "a", Source: DeviceRef{TagLabel, `"stick`, `"stick`}}}},
		"no ID tag":           {"a ID=x", []Entry{{Line: 1, Name: "a", Source: path("ID=x")}}},
		"escaped":             {`a\x20b /dev/\163da /k\040y a\x2cb`, []Entry{{Line: 1, Name: "a b", Source: DeviceRef{Value: "/dev/sda", Literal: `/dev/\163da`}, Key: Location{Path: "/k y"}, Options: "a,b"}}},
		"unknown escape":      {`a\qb /dev/x - cipher=a\,b`, []Entry{{Line: 1, Name: `a\qb`, Source: path("/dev/x"), Options: `cipher=a\,b`}}},
		"key on a device":     {"a /dev/b /k:LABEL=stick", []Entry{{Line: 1, Name: "a", Source: path("/dev/b"), Key: Location{"/k", &label}}}},
		"last colon":          {"a /dev/b /k:x:LABEL=stick", []Entry{{Line: 1, Name: "a", Source: path("/dev/b"), Key: Location{"/k:x", &label}}}},
		"colon in the path":   {"a /dev/b /k:x", []Entry{{Line: 1, Name: "a", Source: path("/dev/b"), Key: Location{Path: "/k:x"}}}},
		"colon in the device": {"a /dev/b /k:/dev/sd:1", []Entry{{Line: 1, Name: "a", Source: path("/dev/b"), Key: Location{Path: "/k:/dev/sd:1"}}}},
		"carriage returns":    {"a /dev/b\rc /dev/d\r\ne /dev/f\n\rg /dev/h", []Entry{{Line: 1, Name: "a", Source: path("/dev/b")}, {Line: 2, Name: "c", Source: path("/dev/d")}, {Line: 3, Name: "e", Source: path("/dev/f")}, {Line: 4, Name: "g", Source: path("/dev/h")}}},
		"NUL ends a line":     {"a /dev/b\x00c /dev/d", []Entry{{Line: 1, Name: "a", Source: path("/dev/b")}, {Line: 2, Name: "c", Source: path("/dev/d")}}},
	} {
		f := parse(t, tt.text)
		for i := range tt.want {
			tt.want[i].File = "crypttab"
		}
		if diff := cmp.Diff(tt.want, f.Entries); diff != "" {
			t.Errorf("%s:\n%s", name, diff)
		}
	}
}

func TestSkippedTextIsWarnedAbout(t *testing.T) {
	t.Parallel()
	f := parse(t, "ok /dev/a\nonly\na /dev/b - luks, discard x\n")
	if len(f.Warnings) != 2 {
		t.Fatalf("warnings: %v", f.Warnings)
	}
	for i, want := range []string{"crypttab:2: line: no device", `crypttab:3: line: ignoring "discard"`} {
		if got := f.Warnings[i].Error(); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q…", got, want)
		}
	}
}

func TestHugeInputIsRefused(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"line": "a /dev/b " + strings.Repeat("x", maxLine), "file": strings.Repeat("a /dev/b\n", maxFile/9+1)} {
		var syntax *SyntaxError
		if _, err := Parse(strings.NewReader(text), "crypttab"); !errors.As(err, &syntax) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadingFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if f, err := Read(filepath.Join(dir, "absent")); err != nil || len(f.Entries) != 0 {
		t.Errorf("absent file: %v, %v", f, err)
	}
	if _, err := Read(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("folder: %v", err)
	}
	file := filepath.Join(dir, "crypttab")
	if err := os.WriteFile(file, []byte("a /dev/b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if f, err := Read(file); err != nil || len(f.Entries) != 1 {
		t.Errorf("plain file: %v, %v", f, err)
	}
}

func TestCrypttabThatOthersCanWriteIsNotTrusted(t *testing.T) {
	t.Parallel()
	testenv.NeedRoot(t)
	for name, tt := range map[string]struct {
		folder, file os.FileMode
		owner        int
		trusted      bool
	}{
		"root's own":     {0o755, 0o644, 0, true},
		"group writable": {0o755, 0o664, 0, false},
		"world writable": {0o755, 0o646, 0, false},
		"other owner":    {0o755, 0o600, 65534, false},
		"open folder":    {0o777, 0o600, 0, false},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "crypttab")
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Chmod(file, tt.file), os.Chown(file, tt.owner, 0), os.Chmod(dir, tt.folder)); err != nil {
			t.Fatal(err)
		}
		_, err := ReadTrusted(file)
		if tt.trusted && err != nil || !tt.trusted && !errors.Is(err, ErrUntrusted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUdevLinks(t *testing.T) {
	t.Parallel()
	for field, want := range map[string][]string{
		"UUID=ab-cd":          {"/dev/disk/by-uuid/ab-cd"},
		`LABEL=my\040disk`:    {`/dev/disk/by-label/my\x20disk`, `/dev/disk/by-label/my\x5c040disk`},
		"PARTLABEL='a/b'":     {`/dev/disk/by-partlabel/a\x2fb`},
		"PARTUUID=ü":          {"/dev/disk/by-partuuid/ü"},
		"/dev/sda":            {"/dev/sda"},
		"LABEL=#+-.:=@_~\xff": {`/dev/disk/by-label/#+-.:=@_\x7e\xff`},
	} {
		if diff := cmp.Diff(want, ParseDeviceRef(field).UdevLinks()); diff != "" {
			t.Errorf("%s: %s", field, diff)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"root", "vol b", "a:b", "x@y", "größe", "-", strings.Repeat("n", 83)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", "q'x", `q"x`, `b\s`, "a\nb", "a\x1bb", "a\u0085b", "\xff", "control", strings.Repeat("n", 84)} {
		if err := CheckName(name); !errors.Is(err, ErrBadValue) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a /dev/b /k:LABEL=x luks,discard\n#c\nb UUID=1 - tries=0x3\\,4 extra\r\n")
	f.Add("a\\x20b LABEL=\"q\" none tpm2-measure-bank=sha256:,toy-pin=x,timeout=1min")
	f.Fuzz(func(t *testing.T, text string) {
		file, err := Parse(strings.NewReader(text), "f")
		if err != nil {
			return
		}
		for i := range file.Entries {
			e := &file.Entries[i]
			o, _, err := toys.ParseOptions(e.Options)
			if err == nil && (o.KeySlot < AnySlot || o.KeySlot > 31 || o.MeasurePCR > 23 || o.Timeout <= 0 || o.TokenTimeout <= 0) {
				t.Errorf("%q: options out of range: %+v", e.Options, o)
			}
			if strings.ContainsRune(e.Source.Literal, 0) {
				t.Error("a NUL came through")
			}
			_ = e.Source.UdevLinks()
		}
	})
}

func TestEscapedFieldsComeBack(t *testing.T) {
	for _, text := range []string{"/etc/key", "/etc/the salt", "/a\tb\\c\"d'e#f\x01g", "/grüße"} {
		escaped := Escape(text)
		if strings.ContainsAny(escaped, " \t#\"'") || Unescape(escaped) != text {
			t.Errorf("%q became %q", text, escaped)
		}
	}
}
