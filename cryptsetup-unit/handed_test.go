package main

import (
	"context"
	"testing"

	"luksmith/internal/cli"
	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// pinDevice asks for its PIN, and notes what it was given.
type pinDevice struct {
	plug
	got []string
}

func (d *pinDevice) Unlock(ctx context.Context, _ *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	pin, err := ui.Ask(ctx, tokens.Prompt{Text: "PIN of the device", Credential: "tpm2-pin"})
	if err != nil {
		return nil, err
	}
	defer pin.Wipe()
	d.got = append(d.got, string(pin.Bytes()))
	return nil, tokens.ErrLocked
}

// withPINDevice has a bench whose volume wants a PIN.
func withPINDevice(t *testing.T) (*bench, *pinDevice) {
	t.Helper()
	b, d := newBench(t), &pinDevice{plug: plug{typ: "tpm2"}}
	b.newHandlers = func() tokens.Set { return tokens.Set{d} }
	return b, d
}

// TestPassphraseTypedForAPINOpensTheVolume: it went to the device and cost a try.
func TestPassphraseTypedForAPINOpensTheVolume(t *testing.T) {
	t.Parallel()
	b, d := withPINDevice(t)
	asked := b.agent(t, "+"+rightPassphrase, "-")
	r, err := b.run(t, "vol", imageWithToken(t, "systemd-tpm2"), "-", "tpm2-device=auto,password-cache=no")
	if err != nil || r.Opened.By != "passphrase typed for a PIN" || *r.Opened.Keyslot != 0 || len(asked()) != 1 || len(r.Failures) != 0 {
		t.Errorf("%v, %+v, asked %v, failures %v", err, r.Opened, asked(), r.Failures)
	}
	if len(d.got) != 0 {
		t.Errorf("the device got %q", d.got)
	}
}

// TestPassphraseTypedForAPINIsThatOfTheKeyCommand: what opened the volume is what it prints.
func TestPassphraseTypedForAPINIsThatOfTheKeyCommand(t *testing.T) {
	t.Parallel()
	b, _ := withPINDevice(t)
	b.agent(t, "+"+rightPassphrase, "-")
	e, err := entryOfArguments([]string{"vol", imageWithToken(t, "systemd-tpm2"), "-", "tpm2-device=auto,password-cache=no"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := b.newJob(e)
	if err != nil {
		t.Fatal(err)
	}
	key, err := b.findKey(b.ctx, j)
	if err != nil || string(key.Bytes()) != rightPassphrase {
		t.Errorf("%q, %v", key.Bytes(), err)
	}
	key.Wipe()
}

// TestWhatIsNotAPassphraseGoesToTheDevice: a PIN of the device is for the device alone, and
// where no keyslot is for people nothing is tried as a passphrase.
func TestWhatIsNotAPassphraseGoesToTheDevice(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"1234", rightPassphrase} {
		b, d := withPINDevice(t)
		b.agent(t, "+"+reply, "-")
		v := newVolumeWithToken(t, "systemd-tpm2")
		path := v.Path
		if reply == rightPassphrase {
			path = withoutPassphrase(t, v)
		}
		if _, err := b.run(t, "vol", path, "-", "tpm2-device=auto,password-cache=no"); err == nil {
			t.Errorf("%s: opened, status %d", reply, cli.ExitStatus(err))
		}
		if len(d.got) != 1 || d.got[0] != reply {
			t.Errorf("the device got %q, want %q", d.got, reply)
		}
	}
}

// TestKeyThatNobodyTakesIsWiped: the way has ended, or has one already.
func TestKeyThatNobodyTakesIsWiped(t *testing.T) {
	t.Parallel()
	right := secret.Copy([]byte("right"))
	defer right.Wipe()
	shared := 0
	h := &handed{try: opensRight, noun: nounPassphrase, share: func(secret.Secret) { shared++ }}
	for range 2 {
		if !h.isPassphrase(t.Context(), right) {
			t.Error("the passphrase is not known")
		}
	}
	f := h.take()
	if f == nil || f.Key.Len() == 0 || h.take() != nil {
		t.Fatalf("%+v", f)
	}
	f.Key.Wipe()
	h.close()
	h.isPassphrase(t.Context(), right)
	if f := h.take(); f != nil {
		t.Errorf("%+v after the end", f)
	}
	wrong := secret.Copy([]byte("wrong"))
	defer wrong.Wipe()
	if _, err := h.try(t.Context(), wrong, []int{luks2.AnySlot}); err == nil || h.isPassphrase(t.Context(), wrong) {
		t.Error("a wrong one is taken for right")
	}
}
