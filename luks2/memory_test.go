package luks2_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/internal/test/testenv"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// secretsLength is the length of each passphrase that the child reads.
const secretsLength = 40

// openAndWait reads two passphrases from standard input, opens the volume with
// the first, adds a keyslot for the second, wipes what it holds and waits to be
// looked at.
func openAndWait(args []string) error {
	input, err := secret.Read(os.Stdin, 1<<10)
	if err != nil {
		return err
	}
	first, second := secret.Copy(input.Bytes()[:secretsLength]), secret.Copy(input.Bytes()[secretsLength:])
	input.Wipe()
	if err := openAndAdd(args[0], first, second, args[1] == "argon2id"); err != nil {
		return err
	}
	secret.WipeAll([]secret.Secret{first, second})
	fmt.Println("done")
	return unix.Pause()
}

func openAndAdd(path string, first, second secret.Secret, argon2id bool) error {
	d, err := luks2.Open(path, nil)
	if err != nil {
		return err
	}
	key, err := d.OpenKeyslot(context.Background(), luks2.AnySlot, first)
	if err != nil {
		return err
	}
	defer key.Wipe()
	key.ConditionsMAC([]byte("conditions"))
	return d.Update(context.Background(), func(tx *luks2.Tx) error {
		_, err := tx.AddKeyslot(key, second, memoryKDF(argon2id))
		return err
	})
}

func memoryKDF(argon2id bool) luks2.KDF {
	if argon2id {
		return luks2.KDF{Type: luks2.KDFArgon2id, Time: 1, MemoryKiB: 1 << 10, Parallel: 2}
	}
	return luks2.MinimalKDF
}

// TestNoSecretIsLeftInMemory searches the whole memory of a process that opened a
// keyslot and added one, before it exits, for both passphrases and the halves of
// the volume key. 20 runs, PBKDF2 and Argon2id in turn.
func TestNoSecretIsLeftInMemory(t *testing.T) {
	t.Parallel()
	runs := 20
	if testing.Short() {
		runs = 4
	}
	for run := range runs {
		kdf := []string{"pbkdf2", "argon2id"}[run%2]
		first, second := randomText(), randomText()
		v := luks2test.New(t, luks2test.WithPassphrase(first), luks2test.WithFormat(func(o *luks2.FormatOptions) {
			o.KDF = memoryKDF(kdf == "argon2id")
		}))
		key, err := hex.DecodeString(v.VolumeKey)
		if err != nil {
			t.Fatal(err)
		}
		counts := countInChild(t, []string{"open-and-wait", v.Path, kdf}, first+second, map[string]string{
			"passphrase, beginning": first[:20], "passphrase, end": first[20:],
			"new passphrase, beginning": second[:20], "new passphrase, end": second[20:],
			"volume key, first half": string(key[:32]), "volume key, second half": string(key[32:]),
			"volume key, 16 bytes inside": string(key[8:24]),
		})
		for name, n := range counts {
			if n != 0 {
				t.Errorf("run %d, %s: %s is in memory %d times", run, kdf, name, n)
			}
		}
	}
}

// randomText is a passphrase that occurs nowhere else.
func randomText() string {
	b := make([]byte, secretsLength/2)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// countInChild runs a child until it waits and counts needles in its writable
// memory.
func countInChild(t *testing.T, args []string, input string, needles map[string]string) map[string]int {
	t.Helper()
	cmd := child(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "done\n" {
		t.Fatalf("the child says %q", line)
	}
	counts := testenv.CopiesIn(t, cmd.Process.Pid, needles)
	if err := cmd.Process.Signal(unix.SIGCONT); err != nil {
		t.Fatalf("the child has ended: %v", err)
	}
	return counts
}

// TestTheMemorySearchFinds what a child keeps in ordinary and in locked memory.
func TestTheMemorySearchFinds(t *testing.T) {
	t.Parallel()
	text := randomText()
	for _, how := range []string{"ordinary", "secret"} {
		n := countInChild(t, []string{"keep", how}, text, map[string]string{"": text[:20]})
		if n[""] == 0 {
			t.Errorf("nothing was found in %s memory", how)
		}
	}
}

// keepInput holds what it read.
func keepInput(args []string) error {
	kept, err := secret.Read(os.Stdin, 1<<10)
	if err != nil {
		return err
	}
	defer kept.Wipe()
	var copied []byte
	if args[0] == "ordinary" {
		copied = bytes.Clone(kept.Bytes())
		kept.Wipe()
	}
	fmt.Println("done")
	err = unix.Pause()
	runtime.KeepAlive(copied)
	return err
}
