package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
	"luksmith/tokens/all"
)

func TestMain(m *testing.M) {
	command := func() { os.Exit(run(os.Args)) }
	if os.Getenv("LUKSMITH_TEST_COMMAND") != "" { // see sit
		command()
	}
	defer func() {
		for _, h := range helpers {
			h.Remove()
		}
		faultModule.Remove()
		for _, dir := range builtFolders {
			_ = os.RemoveAll(dir)
		}
	}()
	testscript.Main(m, map[string]func(){"cryptenroll": command, "systemd-cryptenroll": command,
		"toyenroll": func() { os.Exit(runWith(os.Args, withToy)) }})
}

// withToy are the token types and one that no command knows of.
func withToy() tokens.Set { return append(all.New(), &tokentest.Toy{}) }

// TestScripts runs the command as its users do. Volumes come from cryptsetup, so
// that every script is a test of interoperability too.
func TestScripts(t *testing.T) {
	testenv.Need(t, "cryptsetup", "systemd-cryptenroll", "strace", "swtpm", "swtpm_setup", "softhsm2-util")
	testscript.Run(t, scriptParams(t, "testdata/script"))
}

// scriptParams are what the scripts of a folder may use.
func scriptParams(t *testing.T, dir string) testscript.Params {
	return testscript.Params{
		Dir: dir,
		Setup: func(env *testscript.Env) error {
			env.Setenv("SYSTEMD_EMOJI", "0")
			env.Setenv("LC_ALL", "C.UTF-8")
			boots, err := filepath.Abs("../tokens/tpm2/bootchain/testdata")
			env.Values[devicesKey{}] = &devices{t: t, boots: boots}
			return err
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"status":  cmdStatus,
			"volume":  cmdVolume,
			"poke":    cmdPoke,
			"same":    cmdSame,
			"count":   cmdCount,
			"tpm":     cmdTPM,
			"key":     cmdKey,
			"card":    cmdCard,
			"module":  cmdModule,
			"disk":    cmdDisk,
			"cut":     cmdCut,
			"helper":  cmdHelper,
			"hint":    cmdHint,
			"tree":    cmdTree,
			"machine": cmdMachine,
		},
		Condition: func(name string) (bool, error) {
			switch name {
			case "systemd257":
				return testenv.HasSystemd257(), nil
			case "root": // alone locks a re-encryption, or looks at a process that hides
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", name)
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	}
}

// cmdStatus runs a program and wants this exit status: `status 9 cryptenroll …`.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program [args]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// cmdVolume makes LUKS2 volumes with real cryptsetup, passphrase hunter2 in
// keyslot 0: `volume FILE [luksFormat options]`.
func cmdVolume(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 {
		ts.Fatalf("usage: volume FILE [options]")
	}
	path := ts.MkAbs(args[0])
	f, err := os.Create(path)
	ts.Check(err)
	ts.Check(f.Truncate(32 << 20))
	ts.Check(f.Close())
	cmd := exec.Command("cryptsetup", append([]string{"luksFormat", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
		path, "-"}, args[1:]...)...)
	cmd.Stdin = strings.NewReader("hunter2")
	cmd.Dir = ts.MkAbs(".")
	if out, err := cmd.CombinedOutput(); err != nil {
		ts.Fatalf("cryptsetup luksFormat: %v\n%s", err, out)
	}
}

// cmdPoke overwrites a part of a file with zeros or with a part of another file:
// `poke FILE OFFSET LENGTH [SOURCE]`.
func cmdPoke(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 || len(args) > 4 {
		ts.Fatalf("usage: poke FILE OFFSET LENGTH [SOURCE]")
	}
	offset, err := strconv.ParseInt(args[1], 0, 64)
	ts.Check(err)
	length, err := strconv.Atoi(args[2])
	ts.Check(err)
	b := make([]byte, length)
	if len(args) == 4 {
		src, err := os.Open(ts.MkAbs(args[3]))
		ts.Check(err)
		defer src.Close()
		_, err = src.ReadAt(b, offset)
		ts.Check(err)
	}
	f, err := os.OpenFile(ts.MkAbs(args[0]), os.O_WRONLY, 0)
	ts.Check(err)
	defer f.Close()
	_, err = f.WriteAt(b, offset)
	ts.Check(err)
}

// cmdSame compares two files byte by byte.
func cmdSame(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	err := exec.Command("cmp", "-s", ts.MkAbs(args[0]), ts.MkAbs(args[1])).Run()
	if neg == (err == nil) {
		ts.Fatalf("files are equal: %t", err == nil)
	}
}

// cmdCount wants a text to occur so often in a file: `count N TEXT FILE`.
func cmdCount(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: count N TEXT FILE")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	if got := strings.Count(ts.ReadFile(args[2]), args[1]); got != want {
		ts.Fatalf("%q occurs %d times in %s, want %d", args[1], got, args[2], want)
	}
}
