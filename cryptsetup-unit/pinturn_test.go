package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"luksmith/crypttab"
	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// pinChip is a TPM whose PIN is that of the volume: "pin of first". A wrong one takes a
// while.
type pinChip struct{ plug }

func (d *pinChip) Unlock(ctx context.Context, req *tokens.UnlockRequest, ui tokens.UI) (*tokens.Unlocked, error) {
	for attempt := range 3 {
		pin, err := ui.Ask(ctx, tokens.Prompt{Text: "PIN of " + req.Volume.Name, Credential: "tpm2-pin", Attempt: attempt})
		if err != nil {
			return nil, err
		}
		right := string(pin.Bytes()) == "pin of "+req.Volume.Name
		pin.Wipe()
		if !right {
			time.Sleep(300 * time.Millisecond)
			continue
		}
		key := secret.Copy([]byte(rightKey))
		return &tokens.Unlocked{Token: req.Tokens[0], Passphrase: key}, req.Opens(ctx, req.Tokens[0], key)
	}
	return nil, tokens.ErrWrongPIN
}

// TestPINsOfSeveralVolumesAreAskedForInTurn: the second volume's question comes when the
// first is open, also after a wrong PIN, whichever volume is found first.
func TestPINsOfSeveralVolumesAreAskedForInTurn(t *testing.T) {
	b := newBench(t)
	b.newHandlers = func() tokens.Set { return tokens.Set{&pinChip{plug{typ: "tpm2"}}} }
	screen, serial := b.atTerminals(t)
	var lines strings.Builder
	var want []string
	for _, options := range []string{"", ",luksmith-token-only", ",nofail"} { // with and without a prompt beside it
		name := "v" + fmt.Sprint(len(want))
		want = append(want, name)
		fmt.Fprintf(&lines, "%s %s - tpm2-device=auto,password-cache=no%s\n", name, imageWithToken(t, "systemd-tpm2"), options)
	}
	done := make(chan error, 1)
	go func() { done <- b.attachLines(t, lines.String()) }()
	for i, name := range want {
		screen.reads("PIN of " + name)
		if i < 2 {
			screen.types("wrong\n")
			screen.reads("Wrong PIN, please try again.")
			screen.reads("PIN of " + name)
		}
		if i < 2 && strings.Contains(serial.text(), "PIN of v"+fmt.Sprint(i+1)) {
			t.Errorf("asked for the next volume while %s is closed:\n%s", name, serial.text())
		}
		screen.types("pin of " + name + "\n")
	}
	if err := <-done; err != nil || len(b.names()) != 3 {
		t.Fatalf("%v, attached %v", err, b.names())
	}
}

// answering is a UI that notes what it is asked, and answers when its context ends or
// there is something to say.
type answering struct {
	tokens.UI
	asked  *[]string
	answer chan string
	err    error
}

func (a *answering) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	if a.err != nil {
		return secret.Secret{}, a.err
	}
	*a.asked = append(*a.asked, p.Text)
	select {
	case text := <-a.answer:
		return secret.Copy([]byte(text)), nil
	case <-ctx.Done():
		return secret.Secret{}, context.Cause(ctx)
	}
}

// TestPINOfAnOptionalVolumeGivesWay to the question of one without which the boot does not
// go on, and comes back; PINs that nobody has to type wait for nothing.
func TestPINOfAnOptionalVolumeGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		list := queue(0, crypttab.Options{NoFail: true}, crypttab.Options{})
		var asked []string
		pins := func(turn *turn, quiet error) *pinsInTurn {
			a := make(chan string, 1)
			a <- "credential"
			return &pinsInTurn{&answering{asked: &asked, answer: make(chan string)}, &answering{asked: new([]string), answer: a, err: quiet}, turn}
		}
		optional, needed := pins(list[0], tokens.ErrNoPrompt), pins(list[1], tokens.ErrNoPrompt)
		if err := list[0].take(t.Context(), forPassphrase); err != nil { // which shows nothing yet
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if _, err := optional.Ask(ctx, tokens.Prompt{Text: "optional"}); err == nil {
				t.Error("an answer that nobody gave")
			}
			optional.pass()
		}()
		if got, err := pins(list[1], nil).Ask(ctx, tokens.Prompt{Text: "stored"}); err != nil || string(got.Bytes()) != "credential" {
			t.Errorf("%q, %v", got.Bytes(), err)
		}
		go func() { time.Sleep(time.Hour); needed.UI.(*answering).answer <- "typed" }()
		if _, err := needed.Ask(ctx, tokens.Prompt{Text: "needed"}); err != nil {
			t.Error(err)
		}
		needed.pass()
		synctest.Wait()
		if want := []string{"optional", "needed", "optional"}; !slices.Equal(asked, want) {
			t.Errorf("asked %q, want %q", asked, want)
		}
		stop()
		<-ended
	})
}
