package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/crypttab"
	"luksmith/internal/askpass"
	"luksmith/internal/cli"
	"luksmith/internal/contest"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// TestWrongKeyFileEndsAtThePromptAlthoughTriesIs1 is the case in which systemd asks
// nobody.
func TestWrongKeyFileEndsAtThePromptAlthoughTriesIs1(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	image := newImage(t)
	asked := b.agent(t, "+"+rightPassphrase)
	r, err := b.run(t, "vol", image, b.file(t, "k", "wrong"), "tries=1,password-cache=no")
	if err != nil {
		t.Fatal(err)
	}
	if got := asked(); len(got) != 1 || got[0]["Id"] != askpass.AgentID(image) || got[0]["Icon"] != "drive-harddisk" || got[0]["Message"] != "Please enter passphrase for disk vol:" {
		t.Errorf("asked: %v", got)
	}
	if got := failedWays(r); len(got) != 1 || got[0] != "key file "+filepath.Join(b.root, "k") {
		t.Errorf("failures: %v", got)
	}
	if r.Opened.By != "passphrase from password agent" || *r.Opened.Keyslot != 0 {
		t.Errorf("opened: %+v", r.Opened)
	}
	if !strings.Contains(b.messages.String(), "key file") {
		t.Errorf("the person is not told: %s", b.messages)
	}
}

func TestTriesCountTypedAnswersOnly(t *testing.T) {
	b := newBench(t)
	credential(t, "cryptsetup.passphrase", "wrong\x00also wrong")
	asked := b.agent(t, "+no", "+no\x00nor this", "+"+rightPassphrase)
	r, err := b.run(t, "vol", newImage(t), b.file(t, "k", "wrong"), "tries=3,try-empty-password,password-cache=no")
	if err != nil {
		t.Fatal(err)
	}
	if len(asked()) != 3 {
		t.Errorf("asked %d times", len(asked()))
	}
	want := []string{"key file " + filepath.Join(b.root, "k"), "empty passphrase", "stored passphrase"}
	if got := failedWays(r); !slices.Equal(got, want) {
		t.Errorf("failures: %q, want %q", got, want)
	}
}

func TestTooManyWrongAnswersEndWithStatus2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.agent(t, "+no", "+no")
	r, err := b.run(t, "vol", newImage(t), "-", "tries=2,password-cache=no")
	if cli.ExitStatus(err) != cli.ExitNoKey || r.Result != "failed" || r.Exit != cli.ExitNoKey || len(b.mapped) != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestCancelledPromptEndsEverything(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.agent(t, "-")
	if r, err := b.run(t, "vol", newImage(t), "-", "password-cache=no"); cli.ExitStatus(err) != cli.ExitCancelled || len(b.mapped) != 0 {
		t.Errorf("%v, %+v", err, r)
	}
}

func TestTimeoutEndsThePrompt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	start := time.Now()
	_, err := b.run(t, "vol", newImage(t), "-", "timeout=100ms,password-cache=no")
	if cli.ExitStatus(err) != cli.ExitTimedOut || !strings.Contains(err.Error(), "nobody answered within 100ms") {
		t.Error(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if left, _ := filepath.Glob(filepath.Join(b.root, "ask", "*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestSlowTokenLeavesTheTimeToThePerson: timeout= counts from when the question can be
// seen, also where a token is busy for longer.
func TestSlowTokenLeavesTheTimeToThePerson(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.patience = time.Minute
	b.newHandlers = func() tokens.Set {
		return tokens.Set{&chip{plug{typ: "tpm2"}, func(context.Context) error {
			time.Sleep(2200 * time.Millisecond)
			return tokenFails(0, tokens.ErrPolicy)
		}}}
	}
	b.agent(t, "+"+rightPassphrase)
	if _, err := b.run(t, "vol", imageWithToken(t, "systemd-tpm2"), "-", "tpm2-device=auto,timeout=2,password-cache=no"); err != nil {
		t.Error(err)
	}
}

// TestSlowKDFDoesNotMakeAnAnswerLate: only the time until the answer counts.
func TestSlowKDFDoesNotMakeAnAnswerLate(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.agent(t, "+right")
	shown := make(chan struct{})
	close(shown)
	const limit = 2 * time.Second
	alone := &job{options: &crypttab.Options{}}
	newTurns([]*job{alone}, 0)
	w := &promptWay{turn: alone.turn, settled: func(context.Context) error { return nil }, appear: shown, reserve: nothingReserved, tries: 1, timeout: limit, answers: answers{asker: askpass.New(b.asking), noun: nounPassphrase, accept: func(secret.Secret, askpass.Source) {},
		try: func(ctx context.Context, s secret.Secret, _ []int) (*contest.Found, error) {
			select {
			case <-time.After(limit + 200*time.Millisecond):
				return &contest.Found{}, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}}}
	if _, err := w.Open(t.Context(), func(bool) {}); err != nil {
		t.Error(err)
	}
}

// TestMissingMemoryDoesNotEndThePrompt: others may give it back.
func TestMissingMemoryDoesNotEndThePrompt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked := b.agent(t, "+right", "+right")
	alone := &job{options: &crypttab.Options{}}
	newTurns([]*job{alone}, 0)
	shown, calls := make(chan struct{}), 0
	close(shown)
	reserved, released := 0, 0
	reserve := func() func() {
		if len(asked()) > 0 || reserved > released {
			t.Error("memory is looked for late, or twice")
		}
		reserved++
		return func() { released++ }
	}
	w := &promptWay{turn: alone.turn, settled: func(context.Context) error { return nil }, appear: shown, reserve: reserve, tries: 3, timeout: crypttab.Forever,
		answers: answers{asker: askpass.New(b.asking), noun: nounPassphrase, accept: func(secret.Secret, askpass.Source) {},
			try: func(context.Context, secret.Secret, []int) (*contest.Found, error) {
				if reserved != 1 || released != 0 {
					t.Error("no memory is kept ready for the answer")
				}
				if calls++; calls == 1 {
					return nil, luks2.ErrNoMemory
				}
				return &contest.Found{}, nil
			}}}
	if _, err := w.Open(t.Context(), func(bool) {}); err != nil || len(asked()) != 2 {
		t.Errorf("%v after %d questions", err, len(asked()))
	}
	if reserved != 1 || released != 1 {
		t.Errorf("memory reserved %d times, released %d times", reserved, released)
	}
	if said := b.messages.String(); !strings.Contains(said, luks2.ErrNoMemory.Error()) || strings.Contains(said, "Wrong") {
		t.Errorf("said: %s", said)
	}
}

func TestHeadless(t *testing.T) {
	b := newBench(t)
	image := newImage(t)
	_, err := b.run(t, "vol", image, "-", "headless")
	if cli.ExitStatus(err) != cli.ExitNoKey || !errors.Is(err, tokens.ErrNoPrompt) {
		t.Errorf("nothing to open it with: %v", err)
	}
	// Unlike systemd, a credential is used all the same.
	credential(t, "cryptsetup.passphrase", rightPassphrase)
	r, err := b.run(t, "vol", image, "-", "headless")
	if err != nil || r.Opened.By != "passphrase from credential" {
		t.Errorf("%v, %+v", err, r)
	}
	if _, err := os.Stat(filepath.Join(b.root, "ask")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("somebody was asked")
	}
}

// TestLockedDeviceIsNotCalledAbsent: a key that refused at the first request, for which no
// single token is to blame.
func TestLockedDeviceIsNotCalledAbsent(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	blocked := fmt.Errorf("/dev/hidraw0: %w", tokens.ErrLocked)
	b.newHandlers = stub(&plug{script: []func(*tokens.UnlockRequest) error{fails(errors.Join(tokens.ErrNoDevice, blocked))}})
	_, err := b.run(t, "vol", imageWithToken(t, "systemd-tpm2"), "-", "tpm2-device=auto,token-timeout=10ms,headless")
	if err == nil || !errors.Is(err, tokens.ErrLocked) || cli.ExitStatus(err) != cli.ExitLockout || !strings.Contains(err.Error(), "/dev/hidraw0") {
		t.Errorf("%d: %v", cli.ExitStatus(err), err)
	}
}

func TestRelativeKeyFileIsDropped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.agent(t, "+"+rightPassphrase)
	r, err := b.run(t, "vol", newImage(t), "rel.key", "password-cache=no")
	if err != nil || len(r.Failures) != 0 || !strings.Contains(b.messages.String(), `"rel.key" is not absolute; ignored`) {
		t.Errorf("%v, %+v, %s", err, r, b.messages)
	}
}

func TestTokenOpensWithoutQuestion(t *testing.T) {
	t.Parallel()
	for _, options := range []string{"", "tpm2-device=auto", "luksmith-token-only"} {
		b := newBench(t)
		b.newHandlers = stub(&plug{passphrase: rightKey, script: []func(*tokens.UnlockRequest) error{opens}})
		asked := b.agent(t, "-")
		r, err := b.run(t, "vol", imageWithToken(t, "systemd-tpm2"), "-", options)
		if err != nil || r.Opened.By != "tpm2 token" || *r.Opened.Token != 0 || *r.Opened.Keyslot != 1 || len(asked()) != 0 {
			t.Errorf("%q: %v, %+v, asked %v", options, err, r.Opened, asked())
		}
	}
}

func TestKeyFileWithoutTokenOptionUsesNoToken(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	p := &plug{passphrase: rightKey, script: []func(*tokens.UnlockRequest) error{opens}}
	b.newHandlers = stub(p)
	r, err := b.run(t, "vol", imageWithToken(t, "systemd-tpm2"), b.file(t, "k", rightPassphrase), "headless")
	if err != nil || p.calls != 0 || *r.Opened.Keyslot != 0 {
		t.Errorf("%v, %d calls, %+v", err, p.calls, r.Opened)
	}
}

// TestDeadTokenAndWrongKeyFileEndAtThePrompt is the case with tries=1.
func TestDeadTokenAndWrongKeyFileEndAtThePrompt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.newHandlers = stub(&plug{script: []func(*tokens.UnlockRequest) error{fails(tokenFails(0, tokens.ErrPolicy))}})
	image := imageWithToken(t, "systemd-tpm2")
	asked := b.agent(t, "+"+rightPassphrase)
	r, err := b.run(t, "vol", image, b.file(t, "k", "wrong"), "tries=1,tpm2-device=auto,password-cache=no")
	if err != nil || len(asked()) != 1 {
		t.Fatalf("%v, asked %v", err, asked())
	}
	if got := failedWays(r); !slices.Equal(got, []string{"tpm2 token", "key file " + filepath.Join(b.root, "k")}) {
		t.Errorf("failures: %q", got)
	}
	if r.Failures[0].Exit != cli.ExitPolicy || r.Failures[1].Exit != cli.ExitNoKey {
		t.Errorf("failures: %+v", r.Failures)
	}
}

func TestPromptSaysWhatOpensTheVolume(t *testing.T) {
	t.Parallel()
	for tokenType, want := range map[string]string{"systemd-recovery": "passphrase or recovery key", "systemd-tpm2": "passphrase", "clevis": "passphrase"} {
		b := newBench(t)
		asked := b.agent(t, "-")
		_, _ = b.run(t, "vol", imageWithToken(t, tokenType), "-", "password-cache=no")
		if got := asked(); len(got) != 1 || got[0]["Message"] != "Please enter "+want+" for disk vol:" {
			t.Errorf("%s: %v", tokenType, got)
		}
	}
	image := withoutPassphrase(t, newVolumeWithToken(t, "systemd-recovery"))
	b := newBench(t)
	asked := b.agent(t, "+"+rightKey)
	if r, err := b.run(t, "vol", image, "-", "password-cache=no"); err != nil || r.Opened.By != "recovery key from password agent" || asked()[0]["Message"] != "Please enter recovery key for disk vol:" {
		t.Errorf("%v, %v", err, asked())
	}
}

// TestNobodyIsAskedWhenNoKeyslotIsForPeople: every keyslot belongs to a token.
func TestNobodyIsAskedWhenNoKeyslotIsForPeople(t *testing.T) {
	t.Parallel()
	image := withoutPassphrase(t, newVolumeWithToken(t, "systemd-tpm2"))
	b := newBench(t)
	b.newHandlers = stub(&plug{script: []func(*tokens.UnlockRequest) error{fails(tokenFails(0, tokens.ErrPolicy))}})
	asked := b.agent(t, "-")
	if _, err := b.run(t, "vol", image, "-", "tpm2-device=auto"); cli.ExitStatus(err) != cli.ExitPolicy || len(asked()) != 0 {
		t.Errorf("%v, asked %v", err, asked())
	}
}

func TestDiskNameInThePrompt(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.file(t, "etc/fstab", "# x\n/dev/mapper/vol /ho\\040me ext4 defaults 0 0\n")
	asked := b.agent(t, "-")
	_, _ = b.run(t, "vol", newImage(t), "-", "password-cache=no")
	if got := asked(); len(got) != 1 || got[0]["Message"] != "Please enter passphrase for disk vol on /ho me:" {
		t.Errorf("%v", got)
	}
}

// TestOptionsOfTheQuestion: what agents see of password-echo= and verify.
func TestOptionsOfTheQuestion(t *testing.T) {
	t.Parallel()
	image := newImage(t)
	for options, want := range map[string]struct {
		echo, silent string
		questions    int
	}{
		"":                     {"0", "0", 1},
		"password-echo=masked": {"0", "0", 1},
		"password-echo=yes":    {"1", "0", 1},
		"password-echo=no":     {"0", "1", 1},
		"verify":               {"0", "0", 2},
		"verify,tries=1":       {"0", "0", 2},
	} {
		b := newBench(t)
		asked := b.agent(t, "+"+rightPassphrase, "+"+rightPassphrase)
		_, err := b.run(t, "vol", image, "-", "password-cache=no,"+options)
		if err != nil {
			t.Fatalf("%q: %v", options, err)
		}
		list := asked()
		if len(list) != want.questions || list[0]["Echo"] != want.echo || list[0]["Silent"] != want.silent || list[0]["Id"] != askpass.AgentID(image) || list[0]["NotAfter"] != "0" {
			t.Errorf("%q: %v", options, list)
		}
		if want.questions == 2 && list[1]["Id"] != strings.Replace(askpass.AgentID(image), "cryptsetup:", "cryptsetup-verification:", 1) {
			t.Errorf("%q: %v", options, list[1])
		}
	}
}

// TestAgentsSeeTheTimeout: NotAfter= is when timeout= ends.
func TestAgentsSeeTheTimeout(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked := b.agent(t, "+"+rightPassphrase)
	if _, err := b.run(t, "vol", newImage(t), "-", "password-cache=no,timeout=5min"); err != nil {
		t.Fatal(err)
	}
	if got := asked()[0]["NotAfter"]; got == "0" || got == "" {
		t.Errorf("NotAfter=%s", got)
	}
}

// TestUnlimitedTries ends with the right answer only.
func TestUnlimitedTries(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	asked := b.agent(t, "+a", "+b", "+c", "+d", "+e", "+"+rightPassphrase)
	if _, err := b.run(t, "vol", newImage(t), "-", "tries=0,password-cache=no"); err != nil || len(asked()) != 6 {
		t.Errorf("%v after %d answers", err, len(asked()))
	}
}

// TestKeyFileOnAnotherDevice is mounted for the moment only.
func TestKeyFileOnAnotherDevice(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	root := t.TempDir()
	write(t, filepath.Join(root, "key"), []byte(rightKey), 0o600)
	mounted := 0
	b.mount = func(_ context.Context, device string) (string, func() error, error) {
		mounted++
		return root, func() error { mounted--; return nil }, nil
	}
	stick := b.file(t, "stick", "")
	r, err := b.run(t, "vol", newImage(t), "/key:"+stick, "headless")
	if err != nil || r.Opened.By != "key file /key on "+stick || mounted != 0 {
		t.Errorf("%v, %+v, mounted %d", err, r.Opened, mounted)
	}
	_, err = b.run(t, "vol", newImage(t), "/key:/dev/absent", "keyfile-timeout=50ms,headless")
	if cli.ExitStatus(err) != cli.ExitTimedOut || !strings.Contains(err.Error(), "key device /dev/absent did not appear within 50ms") {
		t.Errorf("absent: %v", err)
	}
}
