package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"time"

	"luksmith/internal/helper"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

const (
	// waitSlice is how long one process waits for tokens to come or go. Then a new
	// one loads the modules again: some look for tokens only at that moment.
	waitSlice = 5 * time.Second
	// waitGrace is what a module may take beyond that, to read a new card.
	waitGrace = 10 * time.Second
	// waitPause follows a process that was lost.
	waitPause = time.Second
	// waitLosses is how many lost processes in a row mean that it is no use.
	waitLosses = 3
)

// WaitDevice implements tokens.DeviceWaiter. It returns nil when the tokens that
// are plugged in are not those that the last Unlock saw. A reader that was there
// without a card is the reason to have it: the kernel does not see the card.
func (h *Handler) WaitDevice(ctx context.Context) error {
	h.memory.waiting.Lock()
	defer h.memory.waiting.Unlock()
	for losses := 0; ; {
		changed, err := h.waitOnce(ctx)
		switch {
		case changed && err == nil:
			return h.noteChange(ctx)
		case err == nil:
			losses = 0
			continue
		case ctx.Err() != nil || !lost(err) || losses == waitLosses:
			return err
		}
		// A card that goes while it is read can take the module with it.
		losses++
		select {
		case <-time.After(waitPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// maxChanges is how many changes are believed: a token that calls itself otherwise
// each time would have everything tried again and again.
const maxChanges = 60

// noteChange counts a change and makes a pause that grows with their number.
func (h *Handler) noteChange(ctx context.Context) error {
	if h.memory.changes++; h.memory.changes > maxChanges {
		return fmt.Errorf("the PKCS#11 tokens changed %d times; they are not watched any more", maxChanges)
	}
	select {
	case <-time.After(min(time.Duration(h.memory.changes-1)*100*time.Millisecond, waitSlice)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lost reports whether a process crashed or had to be killed.
func lost(err error) bool {
	return errors.Is(err, helper.ErrCrashed) || errors.Is(err, tokens.ErrTimeout)
}

func (h *Handler) waitOnce(ctx context.Context) (changed bool, err error) {
	s, err := h.open(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	var result wire.WaitResult
	_, err = s.callWithin(ctx, waitSlice+waitGrace, helper.Call{Method: wire.MethodWait,
		Params: wire.WaitParams{State: h.memory.state, Milliseconds: int(waitSlice.Milliseconds())}}, &result)
	return result.Changed, err
}
