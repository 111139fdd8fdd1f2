package crypttab

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

const (
	uuid1 = "11111111-1111-1111-1111-111111111111"
	uuid2 = "22222222-2222-2222-2222-222222222222"
	uuid3 = "33333333-3333-3333-3333-333333333333"
)

// generatorCases are read by the real generator and by Select.
var generatorCases = map[string]struct {
	cmdline, crypttab string
	initrd            bool
}{
	"plain crypttab": {crypttab: "a UUID=" + uuid1 + "\n b\t/dev/x /key:LABEL=k luks,discard extra\n#c\n  # d\nonly\nc LABEL=\"q\" /a:b luks\n" +
		"d PARTLABEL=a#b /k:/dev/sdb:part x-systemd.device-timeout=5,luks\ne /img/file - -\nroot PARTUUID=9 none none\n"},
	"not in the initrd":      {cmdline: "rd.luks.uuid=" + uuid1 + " rd.luks=no", crypttab: "a UUID=" + uuid1 + "\nb UUID=" + uuid2},
	"in the initrd":          {cmdline: "rd.luks.uuid=" + uuid1, crypttab: "a UUID=" + uuid1 + "\nb UUID=" + uuid2, initrd: true},
	"switched off":           {cmdline: "luks=0", crypttab: "a UUID=" + uuid1},
	"switched off and on":    {cmdline: "luks=0 luks", crypttab: "a UUID=" + uuid1},
	"bad switch":             {cmdline: "luks=perhaps", crypttab: "a UUID=" + uuid1},
	"without crypttab":       {cmdline: "luks.crypttab=no luks.uuid=" + uuid1, crypttab: "a UUID=" + uuid1 + " /k discard"},
	"allow-list":             {cmdline: "luks.uuid=luks-" + uuid1, crypttab: "a UUID=" + uuid1 + "\nb /dev/disk/by-uuid/" + uuid2 + "\nluks-" + uuid3 + " /dev/z\nz /dev/y"},
	"allow-list by link":     {cmdline: "luks.uuid=" + uuid2 + " luks.uuid=" + uuid3, crypttab: "b /dev/disk/by-uuid/" + uuid2 + "\nluks-" + uuid3 + " /dev/z\nz /dev/y"},
	"options replace":        {cmdline: "luks.options=" + uuid1 + "=discard,tries=1 luks.options=timeout=3", crypttab: "a UUID=" + uuid1 + " - luks,read-only\nb UUID=" + uuid2 + " - luks"},
	"crypttab's key wins":    {cmdline: "luks.key=" + uuid1 + "=/cmd luks.uuid=" + uuid1, crypttab: "a UUID=" + uuid1 + " /tab"},
	"only on the line":       {cmdline: "luks.name=" + uuid1 + "=one luks.key=" + uuid1 + "=/p:UUID=66 luks.options=" + uuid1 + "=discard luks.uuid=" + uuid2 + " luks.options=timeout=3 luks.key=/def:LABEL=x"},
	"data device":            {cmdline: "luks.uuid=" + uuid1 + " luks.data=" + uuid1 + "=/dev/data"},
	"bad words":              {cmdline: "luks.name=zz luks.name luks.uuid luks.key=zz=/k luks.data=x luks.uuid=nonsense luks.name=ABC=x luks.frob=1"},
	"quotes on the line":     {cmdline: `"luks.name=` + uuid1 + `=se ven" 'luks.options=a b'`},
	"name given twice":       {cmdline: "luks.name=" + uuid1 + "=one luks.name=" + uuid1 + "=two"},
	"default options remain": {cmdline: "luks.uuid=" + uuid1 + " luks.uuid=" + uuid2 + " luks.options=" + uuid1 + "=discard luks.options=tries=1"},
}

var execStart = regexp.MustCompile(`(?m)^ExecStart=\S*systemd-cryptsetup attach '(.*?)' '(.*?)' '(.*?)' '(.*)'$`)

// generate runs a real generator in dir, which it calls inside, and returns the
// arguments of attach.
func generate(t *testing.T, cmd func(env []string, args ...string) *exec.Cmd, dir, inside, cmdline, crypttab string, initrd bool) (list []string) {
	t.Helper()
	for _, d := range []string{"normal", "early", "late", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "crypttab"), []byte(crypttab), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"SYSTEMD_PROC_CMDLINE=" + cmdline, "SYSTEMD_CRYPTTAB=" + inside + "/crypttab", "RUNTIME_DIRECTORY=" + inside + "/run", "SYSTEMD_IN_INITRD=0"}
	if initrd {
		env[3] = "SYSTEMD_IN_INITRD=1"
	}
	_ = cmd(env, inside+"/normal", inside+"/early", inside+"/late").Run() // 1 when a line was skipped
	units, _ := filepath.Glob(filepath.Join(dir, "normal", "systemd-cryptsetup@*.service"))
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range execStart.FindAllStringSubmatch(string(text), -1) {
			list = append(list, strings.ReplaceAll(strings.Join(m[1:], "|"), inside+"/run", "RUN"))
		}
	}
	slices.Sort(list)
	return list
}

// selected spells our entries like the generator's arguments.
func selected(cmdline, crypttab string, initrd bool) (list []string) {
	f, _ := Parse(strings.NewReader(crypttab), "crypttab")
	entries, _ := ParseKernelLine(cmdline, initrd).Select(f)
	for _, e := range entries {
		key := e.Key.Path
		if e.Key.Device != nil {
			key = "RUN/keydev-" + e.Name + key
		}
		var options []string
		for o := range strings.SplitSeq(e.Options, ",") {
			if !strings.HasPrefix(o, "x-systemd.device-timeout=") {
				options = append(options, o)
			}
		}
		list = append(list, strings.Join([]string{e.Name, e.Source.UdevLinks()[0], key, strings.Join(options, ",")}, "|"))
	}
	slices.Sort(list)
	return list
}

func compareGenerator(t *testing.T, run func(t *testing.T, cmdline, crypttab string, initrd bool) []string) {
	volumes := 0
	defer func() {
		if volumes < len(generatorCases) {
			t.Errorf("the generator made only %d units", volumes)
		}
	}()
	for name, tt := range generatorCases {
		want := run(t, tt.cmdline, tt.crypttab, tt.initrd)
		volumes += len(want)
		for i, line := range want { // attach takes these for absent
			line = strings.ReplaceAll(strings.ReplaceAll(line, "|-", "|"), "|none", "|")
			want[i] = line
		}
		if got := selected(tt.cmdline, tt.crypttab, tt.initrd); !slices.Equal(got, want) {
			t.Errorf("%s:\n here    %q\n systemd %q", name, got, want)
		}
	}
}

func TestVolumesLikeInstalledGenerator(t *testing.T) {
	t.Parallel()
	const program = "/lib/systemd/system-generators/systemd-cryptsetup-generator"
	if _, err := os.Stat(program); err != nil {
		testenv.Missing(t, program, "sh .ci/install-deps installs it")
	}
	compareGenerator(t, func(t *testing.T, cmdline, crypttab string, initrd bool) []string {
		dir := t.TempDir()
		return generate(t, func(env []string, args ...string) *exec.Cmd {
			cmd := exec.Command(program, args...)
			cmd.Env = env
			return cmd
		}, dir, dir, cmdline, crypttab, initrd)
	})
}

func TestVolumesLikeGenerator257(t *testing.T) {
	t.Parallel()
	tree := testenv.Systemd257(t)
	compareGenerator(t, func(t *testing.T, cmdline, crypttab string, initrd bool) []string {
		dir, err := os.MkdirTemp(tree.Dir(), "")
		if err != nil {
			t.Fatal(err)
		}
		return generate(t, func(env []string, args ...string) *exec.Cmd {
			return tree.Command(env, "/usr/lib/systemd/system-generators/systemd-cryptsetup-generator", args...)
		}, dir, tree.Inside(dir), cmdline, crypttab, initrd)
	})
}

// TestEscapesLikePID1 has the real unit loader decode a quoted word, as it does
// with what the generator wrote. It prints the decoded word when that is not a program.
func TestEscapesLikePID1(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "systemd-analyze")
	words := []string{`disk\x20b`, `b\sc`, `a\040b`, `a\054b`, `a\u00e9`, `a\U0001F600`, `a%%b`, `a$$b`, `a\qb`, `a\qb\x20c`, `a\x2`, `a\x00`, `a\000`, `a\400`, `a\54b`, `a\,b`, `a\\b`, `a\"b`, `a\'b`, `\x2e\x2E`, `a\U00110000`}
	dir := t.TempDir()
	args := []string{"--man=no", "verify"}
	for i, w := range words {
		unit := filepath.Join(dir, "t"+string(rune('a'+i))+".service")
		if err := os.WriteFile(unit, []byte("[Service]\nExecStart='/nonexistent/"+w+"'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, unit)
	}
	out, _ := exec.Command("systemd-analyze", args...).CombinedOutput()
	for i, w := range words {
		want := "/nonexistent/" + strings.ReplaceAll(unescape(w), "%%", "%")
		unit := "t" + string(rune('a'+i)) + ".service"
		seen := strings.Contains(string(out), unit+": Command "+want+" is not executable") ||
			strings.Contains(string(out), unit+":2: Executable name contains special characters: "+want+"\n")
		if !seen {
			t.Errorf("%s: systemd does not decode it to %q:\n%s", w, want, grep(string(out), unit))
		}
	}
}

func grep(text, word string) (found string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found += line
		}
	}
	return found
}

func FuzzKernelLine(f *testing.F) {
	f.Add("luks.uuid=luks-1 rd.luks.name=1-2=x luks.key=00000000-0000-0000-0000-000000000000=/k:LABEL=y 'luks.options=a b'")
	f.Fuzz(func(t *testing.T, text string) {
		k := ParseKernelLine(text, true)
		entries, _ := k.Select(&File{Entries: []Entry{{Name: "a", Source: ParseDeviceRef("UUID=1")}}})
		seen := map[string]bool{}
		for _, e := range entries {
			if seen[e.Name] {
				t.Errorf("two entries named %q", e.Name)
			}
			seen[e.Name] = true
		}
	})
}
