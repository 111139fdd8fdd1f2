package dmcrypt

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

const testUUID = "06d80214-ddca-4458-a508-b98c9347b5d1"

func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, kernel string
		err          error
	}{
		{"root", "root", nil},
		{"a:b@c=d.e_f#g+h-i", "a:b@c=d.e_f#g+h-i", nil},
		{"vol b", `vol\x20b`, nil},
		{"ü", `\xc3\xbc`, nil},
		{`a\x20b`, `a\x20b`, nil},
		{`back\slash`, `back\x5cslash`, nil},
		{`mixed\x20 b`, "", ErrName},
		{"", "", ErrName},
		{".", "", ErrName},
		{"..", "", ErrName},
		{"control", "", ErrName},
		{"a/b", "", ErrName},
		{"a\x00b", "", ErrName},
		{strings.Repeat("n", 127), strings.Repeat("n", 127), nil},
		{strings.Repeat("n", 128), "", ErrName},
		{strings.Repeat(" ", 32), "", ErrName},
	} {
		got, err := kernelName(tt.name)
		if got != tt.kernel || !errors.Is(err, tt.err) {
			t.Errorf("kernelName(%q) = %q, %v; want %q, %v", tt.name, got, err, tt.kernel, tt.err)
		}
		if err == nil && unmangle(got) != unmangle(tt.name) {
			t.Errorf("unmangle(%q) = %q", got, unmangle(got))
		}
	}
}

func TestKernelUUIDHasRoomFor83Bytes(t *testing.T) {
	t.Parallel()
	got, err := kernelUUID(LUKS2, testUUID, strings.Repeat("n", 83))
	if err != nil || got != "CRYPT-LUKS2-06d80214ddca4458a508b98c9347b5d1-"+strings.Repeat("n", 83) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := kernelUUID(LUKS2, testUUID, strings.Repeat("n", 84)); !errors.Is(err, ErrName) {
		t.Errorf("a name of 84 bytes gives %q, %v", got, err)
	}
}

// request is a valid one with a key of 64 bytes that are all 0xab.
func request() *Request {
	key := secret.New(64)
	for i := range key.Bytes() {
		key.Bytes()[i] = 0xab
	}
	return &Request{Name: "vol", UUID: testUUID, Device: "/dev/x", Key: key, Segment: Segment{Offset: 1 << 20, Encryption: "aes-xts-plain64"}}
}

func TestTableParameters(t *testing.T) {
	t.Parallel()
	inline := strings.Repeat("ab", 64)
	for _, tt := range []struct {
		name   string
		change func(*Request)
		want   string
	}{
		{"LUKS2", func(*Request) {}, "aes-xts-plain64 :64:logon:cryptsetup:" + testUUID + "-d0 0 7:3 2048"},
		{"digest", func(r *Request) { r.Digest = 2 }, "aes-xts-plain64 :64:logon:cryptsetup:" + testUUID + "-d2 0 7:3 2048"},
		{"sector size", func(r *Request) { r.Segment.SectorSize = 4096 }, "aes-xts-plain64 :64:logon:cryptsetup:" + testUUID + "-d0 0 7:3 2048 1 sector_size:4096"},
		{"IV tweak", func(r *Request) { r.Segment.IVTweak = 77 }, "aes-xts-plain64 :64:logon:cryptsetup:" + testUUID + "-d0 77 7:3 2048"},
		{"all flags", func(r *Request) { r.Flags = 1<<7 - 1; r.Segment.SectorSize = 2048 }, "aes-xts-plain64 :64:logon:cryptsetup:" + testUUID +
			"-d0 0 7:3 2048 8 allow_discards same_cpu_crypt submit_from_crypt_cpus no_read_workqueue no_write_workqueue iv_large_sectors high_priority sector_size:2048"},
		{"LUKS1", func(r *Request) { r.Type = LUKS1 }, "aes-xts-plain64 " + inline + " 0 7:3 2048"},
		{"LUKS1 with discard", func(r *Request) { r.Type = LUKS1; r.Flags = AllowDiscards }, "aes-xts-plain64 " + inline + " 0 7:3 2048 1 allow_discards"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request()
			defer r.Key.Wipe()
			tt.change(r)
			m, err := r.validate()
			if err != nil {
				t.Fatal(err)
			}
			s := m.params(&source{dev: 7<<8 | 3}, m.Flags)
			defer s.Wipe()
			if got := string(s.Bytes()); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			back, err := parseTable(s.Bytes())
			if err != nil {
				t.Fatal(err)
			}
			if back.device != "7:3" || back.offset != 2048 || back.ivTweak != m.Segment.IVTweak || back.keySize != 64 || back.sectorSize() != m.sectorSize() || back.flags() != m.Flags {
				t.Errorf("read back as %+v", back)
			}
		})
	}
}

func TestRequestIsRefused(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Request)
		want   error
	}{
		{"name", func(r *Request) { r.Name = "a/b" }, ErrName},
		{"long name", func(r *Request) { r.Name = strings.Repeat("n", 84) }, ErrName},
		{"UUID", func(r *Request) { r.UUID = "../../etc" }, ErrUnsupported},
		{"UUID with a space", func(r *Request) { r.UUID = "06d80214-ddca-4458-a508-b98c9347b5 1" }, ErrUnsupported},
		{"sector size", func(r *Request) { r.Segment.SectorSize = 1536 }, ErrUnsupported},
		{"big sector size", func(r *Request) { r.Segment.SectorSize = 8192 }, ErrUnsupported},
		{"offset", func(r *Request) { r.Segment.Offset = 1000 }, ErrUnsupported},
		{"no cipher", func(r *Request) { r.Segment.Encryption = "" }, ErrUnsupported},
		{"cipher with a word more", func(r *Request) { r.Segment.Encryption = "aes-xts-plain64 00 0 1:1" }, ErrUnsupported},
		{"cipher that encrypts nothing", func(r *Request) { r.Segment.Encryption = "cipher_null-ecb" }, ErrUnsupported},
		{"no key", func(r *Request) { r.Key = secret.Secret{} }, ErrUnsupported},
	} {
		r := request()
		tt.change(r)
		if err := Attach(t.Context(), r); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		device       uint64
		segment      Segment
		sectors      uint64
		wantsAnError bool
	}{
		{"to the end", 3 << 20, Segment{Offset: 1 << 20}, 4096, false},
		{"fixed", 3 << 20, Segment{Offset: 1 << 20, Size: 1 << 20}, 2048, false},
		{"odd end of a file", 3<<20 + 100, Segment{Offset: 1 << 20}, 4096, false},
		{"offset beyond the end", 1 << 20, Segment{Offset: 1 << 20}, 0, true},
		{"fixed and too small", 2 << 20, Segment{Offset: 1 << 20, Size: 2 << 20}, 0, true},
		{"not a multiple of the sector size", 3<<20 + 512, Segment{Offset: 1 << 20, SectorSize: 4096}, 0, true},
		{"overflow", 3 << 20, Segment{Offset: 1 << 20, Size: 1<<64 - 512}, 0, true},
	} {
		got, err := (&source{path: "x", size: tt.device}).fit(&mapping{Request: &Request{Segment: tt.segment}})
		if got != tt.sectors || errors.Is(err, ErrDevice) != tt.wantsAnError {
			t.Errorf("%s: %d, %v", tt.name, got, err)
		}
	}
}

func TestFlags(t *testing.T) {
	t.Parallel()
	got := HeaderFlags([]string{"allow-discards", "no-journal", "future", "no-read-workqueue", "high_priority"})
	if want := AllowDiscards | NoReadWorkqueue | HighPriority; got != want {
		t.Errorf("HeaderFlags: %v, want %v", got, want)
	}
	for _, tt := range []struct {
		minor uint32
		want  []string
	}{
		{21, []string{"allow_discards"}},
		{24, []string{"allow_discards", "no_read_workqueue"}},
		{26, []string{"allow_discards", "no_read_workqueue", "high_priority"}},
	} {
		if got := got.supported([3]uint32{1, tt.minor, 0}).names(); !slices.Equal(got, tt.want) {
			t.Errorf("dm-crypt 1.%d: %v, want %v", tt.minor, got, tt.want)
		}
	}
}

func TestMiscMinor(t *testing.T) {
	t.Parallel()
	const misc = "235 autofs\n 59 device-mapper\nbroken\n"
	if got := miscMinor(misc, "device-mapper", 236); got != 59 {
		t.Errorf("got %d, want the one that is listed", got)
	}
	if got := miscMinor(misc, "loop-control", 237); got != 237 {
		t.Errorf("got %d, want the well-known one", got)
	}
}

func FuzzParseTable(f *testing.F) {
	f.Add([]byte("aes-xts-plain64 :64:logon:cryptsetup:x-d0 0 7:0 32768 1 sector_size:4096"))
	f.Add([]byte("aes-xts-plain64 abcdef 1 /dev/x 8"))
	f.Add([]byte("c - 0 d 0 99"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		if table, err := parseTable(b); err == nil {
			_, _ = table.flags(), table.sectorSize()
		}
		if !bytes.Equal(before, b) {
			t.Error("the input was changed")
		}
	})
}

func TestDeviceNumbersAreRead(t *testing.T) {
	t.Parallel()
	if n, err := parseNumber("259:65537"); err != nil || n != unix.Mkdev(259, 65537) {
		t.Errorf("%#x, %v", n, err)
	}
	for _, s := range []string{"", "8", "8:", ":1", "8:-1", "8:1:1", "x:1", "8:4294967296"} {
		if n, err := parseNumber(s); err == nil {
			t.Errorf("%q is read as %#x", s, n)
		}
	}
}
