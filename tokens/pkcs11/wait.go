package pkcs11

import (
	"context"
	"time"

	"luksmith/internal/helper"
	"luksmith/tokens/pkcs11/wire"
)

// waitSlice is how long one process waits for another state of the slots. Then a
// new one loads the modules again: some look for readers only at that moment.
const waitSlice = 5 * time.Second

// WaitDevice implements tokens.DeviceWaiter. It returns nil when the tokens that
// are plugged in are not those that the last Unlock saw. A reader that was there
// without a card is the reason to have it: the kernel does not see the card.
func (h *Handler) WaitDevice(ctx context.Context) error {
	for {
		changed, err := h.waitOnce(ctx)
		if err != nil || changed {
			return err
		}
	}
}

func (h *Handler) waitOnce(ctx context.Context) (changed bool, err error) {
	s, err := h.open(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	var result wire.WaitResult
	_, err = s.callWithin(ctx, waitSlice+s.timeout, helper.Call{Method: wire.MethodWait,
		Params: wire.WaitParams{State: h.memory.state, Milliseconds: int(waitSlice.Milliseconds())}}, &result)
	return result.Changed, err
}
