package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luksmith/crypttab"
	"luksmith/internal/test/testenv"
)

const generatorUUID = "01234567-89ab-cdef-0123-456789abcdef"

// generated runs the generator and returns the files it wrote, by their path.
func runGenerator(t *testing.T, switchFile, table, cmdline string, stock bool) map[string]string {
	t.Helper()
	b := newBench(t)
	t.Setenv("SYSTEMD_PROC_CMDLINE", cmdline)
	t.Setenv("SYSTEMD_IN_INITRD", "0")
	b.file(t, "etc/crypttab", table)
	if switchFile != "" {
		b.file(t, "etc/luksmith/boot", switchFile)
	}
	if stock {
		b.file(t, "usr/lib/systemd/system-generators/systemd-cryptsetup-generator", "")
	}
	dir := t.TempDir()
	if err := b.generator([]string{dir, dir + "/early", dir + "/late"}); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			text, _ := os.ReadFile(path)
			rel, _ := filepath.Rel(dir, path)
			files[rel] = string(text)
		}
		return nil
	})
	return files
}

func paths(files map[string]string) (list []string) {
	for p := range files {
		list = append(list, p)
	}
	slices.Sort(list)
	return list
}

func TestGenerator(t *testing.T) {
	root := "root UUID=" + generatorUUID + " none luks\n"
	for name, tt := range map[string]struct {
		on, crypttab, cmdline string
		want                  []string
	}{
		"no switch file":    {"", root, "", nil},
		"empty switch file": {"# nothing yet\n", root, "", nil},
		"all":               {"all\n", root, "quiet", []string{"luksmith-attach@root.service", "systemd-cryptsetup@root.service.d/50-luksmith.conf"}},
		"another volume":    {"data", root, "", nil},
		"by name":           {"data # not root\nroot", root, "", []string{"luksmith-attach@root.service", "systemd-cryptsetup@root.service.d/50-luksmith.conf"}},
		"off for one boot":  {"all", root, "luksmith=no", nil},
		"off, on":           {"all", root, "luksmith=no luksmith=yes", []string{"luksmith-attach@root.service", "systemd-cryptsetup@root.service.d/50-luksmith.conf"}},
		"foreign modes": {"all", "a /dev/sda /dev/urandom swap\nb /dev/sdb - tmp\nc /dev/sdc - plain\nd /dev/sdd - tcrypt\ne /dev/sde - bitlk\n" +
			"f /dev/sdf - link-volume-key=@s::x\n", "", nil},
		"names":         {"all", `a\x20b-c /dev/sda` + "\n", "", []string{`luksmith-attach@a\x20b\x2dc.service`, `systemd-cryptsetup@a\x20b\x2dc.service.d/50-luksmith.conf`}},
		"switched off":  {"all", root, "luks=no", nil},
		"cmdline only":  {"all", "", "luks.name=" + generatorUUID + "=x", []string{"luksmith-attach@x.service", "systemd-cryptsetup@x.service.d/50-luksmith.conf"}},
		"restricting":   {"all", "root UUID=" + generatorUUID + " none luksmith-token-only\n", "", []string{"systemd-cryptsetup@root.service.d/50-luksmith.conf"}},
		"bad options":   {"all", "root UUID=" + generatorUUID + " none fixate-volume-key=7\n", "", nil},
		"relative path": {"all", "root sda none\n", "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := paths(runGenerator(t, tt.on, tt.crypttab, tt.cmdline, true)); !slices.Equal(got, tt.want) {
				t.Errorf("wrote %v", got)
			}
		})
	}
}

// TestGeneratedUnits: ours goes first with a time limit and may fail; systemd's command
// line is not touched, unless an option forbids a second program.
func TestGeneratedUnits(t *testing.T) {
	files := runGenerator(t, "all", `r%t\x22$x UUID=`+generatorUUID+" /etc/a\\x20key luks\nfix /img/f /k:LABEL=stick luksmith-latch,header=/h\n", "", true)
	ours := files[`luksmith-attach@r\x25t\x22\x24x.service`]
	if ours != "" {
		t.Error("a quote in a name is refused")
	}
	files = runGenerator(t, "all", `r%t$x UUID=`+generatorUUID+" /etc/a\\x20key luks\nfix /img/f /k:LABEL=stick luksmith-latch,header=/h\n", "", true)
	ours = files[`luksmith-attach@r\x25t\x24x.service`]
	for _, want := range []string{
		"\nBindsTo=dev-disk-by\\x2duuid-01234567\\x2d89ab\\x2dcdef\\x2d0123\\x2d456789abcdef.device\n", "\nTimeoutStartSec=310s\n", "\nRequiresMountsFor=\"/etc/a key\"\n",
		"\nExecStart=-/usr/lib/luksmith/first 32 cryptsetup-unit attach-all --only-automatic --limit=25s -- r%%t$$x\n",
	} {
		if !strings.Contains(ours, want) {
			t.Errorf("%q is missing in\n%s", want, ours)
		}
	}
	dropIn := files[`systemd-cryptsetup@r\x25t\x24x.service.d/50-luksmith.conf`]
	if strings.Contains(dropIn, "Exec") || !strings.Contains(dropIn, `Wants=luksmith-attach@r\x25t\x24x.service`) {
		t.Error(dropIn)
	}
	only := files["systemd-cryptsetup@fix.service.d/50-luksmith.conf"]
	if !regexp.MustCompile(`(?m)^\[Service\]\nExecStart=\nExecStart=/usr/lib/luksmith/cryptsetup-unit attach -- fix\n\z`).MatchString(only) {
		t.Error(only)
	}
}

// TestWithoutSystemdsProgramTheUnitIsOurs: Debian 13 has systemd-cryptsetup in a package
// of its own.
func TestWithoutSystemdsProgramTheUnitIsOurs(t *testing.T) {
	files := runGenerator(t, "all", "home /dev/sdb none nofail\nroot UUID="+generatorUUID+"\nlate /dev/sdc none noauto\n", "", false)
	want := []string{
		"cryptsetup.target.requires/systemd-cryptsetup@root.service", "cryptsetup.target.wants/systemd-cryptsetup@home.service",
		"dev-mapper-home.device.requires/systemd-cryptsetup@home.service", "dev-mapper-late.device.requires/systemd-cryptsetup@late.service",
		"dev-mapper-root.device.requires/systemd-cryptsetup@root.service",
		"systemd-cryptsetup@home.service", "systemd-cryptsetup@late.service", "systemd-cryptsetup@root.service",
	}
	if got := paths(files); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if unit := files["systemd-cryptsetup@home.service"]; !strings.Contains(unit, "\nExecStart=/usr/lib/luksmith/cryptsetup-unit attach -- home\n") {
		t.Error(unit)
	}
}

// TestGeneratedUnitsPassSystemdsCheck reads the units with systemd's own parser.
func TestGeneratedUnitsPassSystemdsCheck(t *testing.T) {
	testenv.Need(t, "systemd-analyze")
	for _, stock := range []bool{true, false} {
		files := runGenerator(t, "all", "a\\x20b UUID="+generatorUUID+" /etc/k luks\n", "", stock)
		dir := t.TempDir()
		for name, text := range files {
			if strings.HasSuffix(name, ".service") && !strings.Contains(name, "/") {
				text = regexp.MustCompile(`/usr/lib/luksmith/\S+`).ReplaceAllString(text, "/bin/true")
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
				out := testenv.Run(t, "systemd-analyze", "verify", "--man=no", "--recursive-errors=no", filepath.Join(dir, name))
				if out != "" {
					t.Errorf("%s: %s", name, out)
				}
			}
		}
	}
}

// TestGeneratorIsReachedByItsName: systemd calls it with three folders.
func TestGeneratorIsReachedByItsName(t *testing.T) {
	dir := t.TempDir()
	if out, errOut, status := command(t, generatorName, dir, dir, dir); status != 0 || out+errOut != "" {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	if _, _, status := command(t, generatorName); status != 1 {
		t.Errorf("without arguments: status %d", status)
	}
}

// TestUnitInTheInitrdObeysWordsForIt: rd.luks.name= may be all that names the volume.
func TestUnitInTheInitrdObeysWordsForIt(t *testing.T) {
	f := &job{options: &crypttab.Options{}}
	f.entry.Name, f.entry.Source = "root", crypttab.ParseDeviceRef("UUID="+generatorUUID)
	for initrd, want := range map[bool]string{true: " attach-all --initrd --only-automatic ", false: " attach-all --only-automatic "} {
		if unit := f.firstUnit(initrd); !strings.Contains(unit, want) {
			t.Errorf("initrd %v: %s", initrd, unit)
		}
	}
}
