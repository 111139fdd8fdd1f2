package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/boottest"
	"luksmith/internal/test/testenv"
)

// hookScripts are the scripts of the packages below a folder in place of /, with a
// cryptenroll that is a script.
type hookScripts struct {
	t    *testing.T
	root string
}

func newHookScripts(t *testing.T, command string) *hookScripts {
	t.Helper()
	h := &hookScripts{t, t.TempDir()}
	for name, place := range map[string]string{"follow-hook": "usr/lib/luksmith/follow-hook", "kernel": "etc/kernel/postinst.d/zzz-luksmith",
		"kernel-install": "usr/lib/kernel/install.d/99-luksmith.install", "deb-postinst": "postinst",
		"apk-commit": commitHook, "follow-before": beforeHook} {
		text := string(content(t, filepath.Join("../internal/packages/hooks", name)))
		text = strings.NewReplacer("/usr/lib/luksmith", h.root+"/usr/lib/luksmith", "/var/lib/luksmith", h.root+"/var/lib/luksmith",
			"/usr/lib/systemd/boot", h.root+"/usr/lib/systemd/boot", "/system-update", h.root+"/system-update", "$(bootctl", "$("+h.root+"/bootctl", "-k 2 28", "-k 1 1").Replace(text)
		h.script(place, text)
	}
	h.script("usr/lib/luksmith/cryptenroll", "#!/bin/sh\necho \"$*\" >>"+h.root+"/calls\n"+command+"\n")
	return h
}

func (h *hookScripts) script(place, text string) {
	h.t.Helper()
	source := testenv.Script(h.t, filepath.Base(place), strings.TrimPrefix(text, "#!/bin/sh\n"))
	place = filepath.Join(h.root, place)
	if err := os.MkdirAll(filepath.Dir(place), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(source, place); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hookScripts) on() {
	h.t.Helper()
	folder := filepath.Join(h.root, "var/lib/luksmith")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "follow.json"), []byte("{}"), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// calls are those of cryptenroll so far.
func (h *hookScripts) calls() int {
	text, _ := os.ReadFile(filepath.Join(h.root, "calls"))
	if n := strings.Count(string(text), "follow --hook\n"); n != strings.Count(string(text), "\n") {
		h.t.Errorf("calls:\n%s", text)
	}
	return strings.Count(string(text), "\n")
}

// run wants a script to succeed, without a word on standard output.
func (h *hookScripts) run(place string, args ...string) {
	h.t.Helper()
	cmd := exec.CommandContext(h.t.Context(), filepath.Join(h.root, place), args...)
	if r := runCommand(h.t, cmd); r.status != 0 || r.stdout != "" {
		h.t.Errorf("%s %q: %d %q %s", place, args, r.status, r.stdout, r.stderr)
	}
}

const (
	kernelHook    = "etc/kernel/postinst.d/zzz-luksmith"
	commitHook    = "etc/apk/commit_hooks.d/luksmith"
	beforeHook    = "usr/lib/luksmith/follow-before"
	installPlugin = "usr/lib/kernel/install.d/99-luksmith.install"
)

func TestHookScriptsCallFollow(t *testing.T) {
	t.Parallel()
	h := newHookScripts(t, "echo words; exit 1")
	h.run(kernelHook, "6.12.1", "/boot/vmlinuz-6.12.1")
	if n := h.calls(); n != 0 {
		t.Fatalf("%d calls before follow was called by a person", n)
	}
	h.on()
	for i, call := range [][]string{{kernelHook, "6.12.1", "/boot/vmlinuz-6.12.1"}, {installPlugin, "add", "6.12.1", "/boot/x", "vmlinuz"},
		{installPlugin, "remove", "6.12.1"}, {"postinst", "triggered", "/usr/lib/systemd/boot/efi"}, {commitHook, "post-commit"}} {
		if h.run(call[0], call[1:]...); h.calls() != i+1 {
			t.Errorf("%q: %d calls", call, h.calls())
		}
	}
	for _, call := range [][]string{{installPlugin, "inspect"}, {installPlugin}, {"postinst", "configure", ""}, {commitHook, "pre-commit"}, {commitHook}} {
		if h.run(call[0], call[1:]...); h.calls() != 5 {
			t.Errorf("%q: a call", call)
		}
	}
	if err := os.Remove(filepath.Join(h.root, "usr/lib/luksmith/cryptenroll")); err != nil {
		t.Fatal(err)
	}
	h.run(kernelHook)
	if err := os.Remove(filepath.Join(h.root, "usr/lib/luksmith/follow-hook")); err != nil {
		t.Fatal(err)
	}
	for _, place := range []string{kernelHook, installPlugin, "postinst"} {
		h.run(place, "add")
	}
	h.run(commitHook, "post-commit")
}

// TestEntriesAreLookedAtBeforeTheyAreExchangedAtBoot: else what an update at boot brings
// would be as doubtful as what somebody brings who had the disk.
func TestEntriesAreLookedAtBeforeTheyAreExchangedAtBoot(t *testing.T) {
	t.Parallel()
	h := newHookScripts(t, "")
	h.script("bootctl", "#!/bin/sh\n[ \"$1\" = --print-esp-path ] && echo "+h.root+"/efi\n")
	put := func(name, text string) {
		if err := boottest.Write(filepath.Join(h.root, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	const own, there = "usr/lib/systemd/boot/efi/systemd-bootx64.efi", "efi/EFI/systemd/systemd-bootx64.efi"
	want := 0
	run := func(what string, calls int) {
		t.Helper()
		h.run(beforeHook)
		if want += calls; h.calls() != want {
			t.Errorf("%s: %d calls, want %d", what, h.calls(), want)
		}
	}
	put(own, "another")
	put(there, "loader")
	run("before follow was called", 0)
	h.on()
	run("another loader", 1)
	put(own+".signed", "loader")
	run("the signed one is there", 0)
	put(own+".signed", "another")
	run("another signed one", 1)
	if err := os.Remove(filepath.Join(h.root, there)); err != nil {
		t.Fatal(err)
	}
	run("the machine has no systemd-boot", 0)
	if err := os.Symlink("/var/cache", filepath.Join(h.root, "system-update")); err != nil {
		t.Fatal(err)
	}
	run("packages are installed at boot", 1)
}

// TestHookScriptsEnd: one that hangs, and one that reads an answer, keep nobody waiting.
func TestHookScriptsEnd(t *testing.T) {
	t.Parallel()
	for name, command := range map[string]string{"hangs": "trap '' TERM; sleep 60", "asks": "read answer && echo asked >&2; exit 3"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHookScripts(t, command)
			h.on()
			begin := time.Now()
			cmd := exec.CommandContext(t.Context(), filepath.Join(h.root, kernelHook))
			cmd.Stdin = strings.NewReader("secret\n")
			if r := runCommand(t, cmd); r.status != 0 || strings.Contains(r.stderr, "asked") {
				t.Errorf("%d %s", r.status, r.stderr)
			}
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// TestKernelInstallRunsThePlugin has systemd's program call it as for a kernel.
func TestKernelInstallRunsThePlugin(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "kernel-install")
	h := newHookScripts(t, "")
	h.on()
	h.script("vmlinuz", "")
	for _, args := range [][]string{{"add", "6.12.1", filepath.Join(h.root, "vmlinuz")}, {"remove", "6.12.1"}} {
		cmd := exec.CommandContext(t.Context(), "kernel-install", args...)
		cmd.Env = append(os.Environ(), "KERNEL_INSTALL_PLUGINS="+filepath.Join(h.root, installPlugin), "KERNEL_INSTALL_CONF_ROOT="+h.root,
			"BOOT_ROOT="+h.root, "MACHINE_ID=6f1d4a1e0a1d4b0f9d7e1f6a2f3b4c5d")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	if n := h.calls(); n != 2 {
		t.Errorf("%d calls", n)
	}
}

// TestActionsOfDNFAreWellFormed: dnf passes over a line that it does not understand.
func TestActionsOfDNFAreWellFormed(t *testing.T) {
	t.Parallel()
	for file, form := range map[string]string{"libdnf5.actions": `^post_transaction:[a-z0-9*-]+:in:enabled=host-only:/usr/lib/luksmith/follow-hook$`,
		"dnf4.action": `^[a-z0-9*-]+:in:/usr/lib/luksmith/follow-hook$`} {
		actions := 0
		for line := range strings.Lines(string(content(t, filepath.Join("../internal/packages/hooks", file)))) {
			switch line = strings.TrimSuffix(line, "\n"); {
			case strings.HasPrefix(line, "#"):
			case !regexp.MustCompile(form).MatchString(line):
				t.Errorf("%s: %s", file, line)
			default:
				actions++
			}
		}
		if actions != 3 {
			t.Errorf("%s: %d actions, want those for systemd-boot, shim and GRUB", file, actions)
		}
	}
}

// TestEveryHookIsPackaged: a file of the folder that no package has does nothing.
func TestEveryHookIsPackaged(t *testing.T) {
	t.Parallel()
	list := string(content(t, "../internal/packages/nfpm.yaml"))
	names, err := os.ReadDir("../internal/packages/hooks")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, e := range names {
		if !strings.Contains(list, fmt.Sprintf("internal/packages/hooks/%s", e.Name())) {
			t.Errorf("%s is in no package", e.Name())
		}
	}
}
