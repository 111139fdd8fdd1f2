package main

import (
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// shells are programs that complete, and how each is started with the two scripts.
var shells = map[string]struct {
	start string   // the file that it reads first
	args  []string // of the shell; DIR is the folder with that
}{
	"bash": {". /usr/share/bash-completion/bash_completion; . DIR/cryptenroll; . COMPLETIONS/cryptsetup-unit.bash; PS1='ready> '; bind 'set show-all-if-ambiguous on'",
		[]string{"bash", "--noprofile", "--rcfile", "DIR/start", "-i"}},
	"zsh": {"cp COMPLETIONS/cryptsetup-unit.zsh DIR/_cryptsetup-unit; mv DIR/cryptenroll DIR/_cryptenroll; fpath=(DIR $fpath); autoload -U compinit; compinit -u -D; PS1='ready> '",
		[]string{"env", "ZDOTDIR=DIR", "zsh", "-d", "-i"}},
	"fish": {"source DIR/cryptenroll; source COMPLETIONS/cryptsetup-unit.fish; function fish_prompt; echo 'ready> '; end; function fish_right_prompt; end; set -g fish_autosuggestion_enabled 0",
		[]string{"fish", "--no-config", "-i", "-C", "source DIR/start"}},
}

// completions are what is typed before the tab, and what is then on the screen.
var completions = []struct {
	typed string
	shown []string
}{
	{"cryptenroll lab", []string{"cryptenroll label"}},
	{"cryptenroll vol", []string{"cryptenroll volume.img"}},
	{"cryptenroll --unlock-key-file=pass", []string{"--unlock-key-file=pass.txt"}},
	{"cryptenroll volume.img --unlock-slot=", []string{"safe", "keyslot 1, recovery", "password"}},
	{"cryptenroll volume.img --wipe-slot=saf", []string{"--wipe-slot=safe"}},
	{"cryptenroll label volume.img ", []string{"safe", "keyslot 1, recovery"}},
	{"cryptenroll 'a;touch pwned' --tpm2-device=l", []string{"--tpm2-device=list"}},
	{"cryptsetup-unit attach-", []string{"cryptsetup-unit attach-all"}},
	{"cryptsetup-unit attach-all --crypttab=pass", []string{"--crypttab=pass.txt"}},
	{"cryptsetup-unit initrd check vol", []string{"check volume.img"}},
	{"cryptsetup-unit initrd check --volume=vol", []string{"--volume=volume.img"}},
	{"cryptsetup-unit status --json=pre", []string{"--json=pretty"}},
}

// TestShellsComplete types into real shells: keyslots come with their labels, files are
// still completed, and no word of the line is executed.
func TestShellsComplete(t *testing.T) {
	t.Parallel()
	for name := range shells {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testenv.Need(t, name, "cryptsetup", "tmux")
			if _, err := os.Stat("/usr/share/bash-completion/bash_completion"); err != nil && name == "bash" {
				testenv.Missing(t, "bash-completion", "sh .ci/install-deps installs it")
			}
			testShell(t, name, shellFolder(t, name))
		})
	}
}

// shellFolder is where a shell starts: the command, what completes it, a volume and a
// file.
func shellFolder(t *testing.T, shell string) string {
	t.Helper()
	dir := t.TempDir()
	exe, err := os.Executable()
	if err == nil {
		err = os.MkdirAll(filepath.Join(dir, "bin"), 0o700)
	}
	if err == nil {
		err = os.Symlink(exe, filepath.Join(dir, "bin", "cryptenroll"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "pass.txt"), []byte("hunter2"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	volume := filepath.Join(dir, "volume.img")
	testenv.Run(t, "truncate", "-s", "32M", volume)
	testenv.Run(t, "cryptsetup", "luksFormat", "-q", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", volume, filepath.Join(dir, "pass.txt"))
	if out, err := commandLine(t, []string{"PASSWORD=hunter2"}, "--recovery-key", "--label=safe", volume).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	script, err := commandLine(t, nil, "completion", shell).Output()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "cryptenroll"), script, 0o600)
	}
	own, aerr := filepath.Abs("../internal/packages/completions")
	start := strings.NewReplacer("DIR", dir, "COMPLETIONS", own).Replace(shells[shell].start)
	if err := errors.Join(err, aerr, os.WriteFile(filepath.Join(dir, cmp.Or(map[string]string{"zsh": ".zshrc"}[shell], "start")), []byte("cd "+dir+"; "+start+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func testShell(t *testing.T, shell, dir string) {
	var args []string
	for _, a := range shells[shell].args {
		args = append(args, strings.ReplaceAll(a, "DIR", dir))
	}
	m := testenv.NewTerminal(t, 150, 40, []string{"LUKSMITH_TEST_COMMAND=1", "HOME=" + dir, "PATH=" + dir + "/bin:" + os.Getenv("PATH")}, args...)
	for _, c := range completions {
		m.Clear("ready>")
		m.Type(c.typed)
		m.Await(c.typed)
		m.Type("\t")
		m.Await(c.shown...)
	}
	if _, err := os.Stat(filepath.Join(dir, "pwned")); err == nil {
		t.Error("a word of the line was executed")
	}
}
