package bls

import (
	"errors"
	"slices"
	"testing"
)

func TestEntriesOfRealSystems(t *testing.T) {
	t.Parallel()
	// As kernel-install writes them with layout bls, and as Fedora's GRUB does.
	e, err := Parse([]byte("# Boot Loader Specification type#1 entry\ntitle      Debian GNU/Linux 13 (trixie)\nversion    6.12.9-amd64\nmachine-id 0123456789abcdef0123456789abcdef\nsort-key   debian\noptions    root=UUID=x ro  quiet systemd.machine_id=0123\nlinux      /0123/6.12.9-amd64/linux\ninitrd     /0123/6.12.9-amd64/initrd.img-6.12.9-amd64\n"))
	if err != nil {
		t.Fatal(err)
	}
	if e.Linux != "/0123/6.12.9-amd64/linux" || !slices.Equal(e.Options, []string{"root=UUID=x ro  quiet systemd.machine_id=0123"}) || e.MachineID != "0123456789abcdef0123456789abcdef" || e.Title != "Debian GNU/Linux 13 (trixie)" || e.Other != nil {
		t.Errorf("%+v", e)
	}
	e, err = Parse([]byte("title Fedora\nlinux /vmlinuz-6.1\r\ninitrd /a /b\ngrub_users $grub_users\ngrub_class fedora\n\toptions\tx\ninitrd /c\ndevicetree /d.dtb\n"))
	if err != nil || !slices.Equal(e.Initrd, []string{"/a /b", "/c"}) || !slices.Equal(e.Options, []string{"x"}) || !slices.Equal(e.Other, []string{"devicetree"}) || e.Linux != "/vmlinuz-6.1" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestLinesThatLoadersMayReadDifferently(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"options quiet\x01", "options \xff", "linux /k\x00x", string(make([]byte, MaxSize+1))} {
		if _, err := Parse([]byte(text)); !errors.Is(err, ErrUnknown) {
			t.Errorf("%.20q: %v", text, err)
		}
	}
	if e, err := Parse([]byte("title Grün\noptions \"quoted words\"\nlinux\n")); err != nil || e.Options[0] != "quoted words" || e.Linux != "" {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestCountersInNames(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]struct {
		id      string
		counter *Counter
		suffix  string
	}{
		"arch.conf":                   {"arch", nil, ".conf"},
		"arch+3.efi":                  {"arch", &Counter{3, 0}, ".efi"},
		"arch+2-1.conf":               {"arch", &Counter{2, 1}, ".conf"},
		"gtk+.conf":                   {"gtk+", nil, ".conf"},
		"gtk+x.conf":                  {"gtk+x", nil, ".conf"},
		"a+1-.conf":                   {"a+1-", nil, ".conf"},
		"6.12+deb13-amd64.conf":       {"6.12+deb13-amd64", nil, ".conf"},
		"a+99999999999999999999.conf": {"a+99999999999999999999", nil, ".conf"},
		"a+b+1-2.efi":                 {"a+b", &Counter{1, 2}, ".efi"},
	} {
		id, c, suffix := SplitName(name)
		if id != want.id || suffix != want.suffix || (c == nil) != (want.counter == nil) || c != nil && *c != *want.counter {
			t.Errorf("%s: %q %v %q", name, id, c, suffix)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add([]byte("title a\nlinux /b\noptions \"c\"\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && e == nil {
			t.Error("neither an entry nor an error")
		}
		SplitName(string(b))
	})
}
