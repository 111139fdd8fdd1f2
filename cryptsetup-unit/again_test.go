package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/luks2test"
	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// exchange writes another volume over the device, which keeps its path.
func exchange(t *testing.T, device, by string) {
	t.Helper()
	content, err := os.ReadFile(by)
	if err == nil {
		err = os.WriteFile(device, content, 0o600)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestVolumeExchangedUnderTheQuestionIsAskedForAnew: the key of one volume was joined
// with the mapping of the other.
func TestVolumeExchangedUnderTheQuestionIsAskedForAnew(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	device, other := newImage(t), newVolume(t, luks2test.WithLabel("other"))
	asked := b.agent(t, "+wrong", "+"+rightPassphrase, "+"+rightPassphrase)
	opened := 0
	b.onQuestion = func() {
		if opened++; opened == 2 { // while the second answer is awaited
			exchange(t, device, other.Path)
		}
	}
	r, err := b.run(t, "vol", device, "-", "password-cache=no")
	if err != nil || len(asked()) != 3 || r.UUID != other.UUID || len(b.mapped) != 1 || b.mapped[0].UUID != other.UUID {
		t.Fatalf("%v, asked %d times, mapped %+v", err, len(asked()), b.mapped)
	}
	if !strings.Contains(b.messages.String(), "has another volume now: UUID "+other.UUID) {
		t.Errorf("the person is not told: %s", b.messages)
	}
}

// TestVolumeExchangedBetweenKeyAndTableIsNotMapped: what is mapped is looked at once
// more when the kernel holds the device.
func TestVolumeExchangedBetweenKeyAndTableIsNotMapped(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	device, other := newImage(t), newVolume(t)
	key := b.file(t, "k", rightKey)
	exchanged := 0
	b.beforeTable = func() {
		if exchanged++; exchanged == 1 {
			exchange(t, device, other.Path)
		}
	}
	r, err := b.run(t, "vol", device, key, "headless")
	if err != nil || exchanged != 2 || len(b.mapped) != 1 || b.mapped[0].UUID != other.UUID || r.UUID != other.UUID {
		t.Errorf("%v after %d tables, mapped %+v", err, exchanged, b.mapped)
	}
}

// TestVolumeThatChangesForEverIsGivenUp: a disk that lies keeps nobody busy.
func TestVolumeThatChangesForEverIsGivenUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	device, first, second := newImage(t), newImage(t), newImage(t)
	tables := 0
	b.beforeTable = func() {
		tables++
		exchange(t, device, map[bool]string{true: first, false: second}[tables%2 == 1])
	}
	_, err := b.run(t, "vol", device, b.file(t, "k", rightKey), "headless")
	if !errors.Is(err, luks2.ErrChanged) || tables != maxTrouble+1 || len(b.mapped) != 0 {
		t.Errorf("%v after %d tables, mapped %+v", err, tables, b.mapped)
	}
}

// TestReadErrorDoesNotEndTheQuestion: a cable that is loose for a moment.
func TestReadErrorDoesNotEndTheQuestion(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	at := &attempt{as: b.attacher, job: &job{}, report: newReport("vol", "x"), opener: &opener{}}
	at.opener.volume = &volume{open: func(context.Context, int, secret.Secret) (*luks2.VolumeKey, error) {
		return nil, &os.PathError{Op: "read", Path: "/dev/x", Err: unix.EIO}
	}}
	at.held, _ = luks2.Open(newImage(t), &luks2.OpenOptions{Hold: true, ReadOnly: true})
	synctest.Test(t, func(t *testing.T) {
		for fails := 1; fails <= maxTrouble+1; fails++ {
			_, err := at.opener.try(t.Context(), secret.Secret{}, nil)
			if again := at.again(t.Context(), err); again != (fails <= maxTrouble) {
				t.Errorf("failure %d: again %v", fails, again)
			}
		}
	})
}
