package main

import (
	"context"
	"errors"

	"luksmith/internal/doctor"
	"luksmith/internal/forecast"
	"luksmith/tokens/tpm2"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
)

// next is what the TPM will do for the volume at the next boot of each entry. A machine
// without event log, on which nothing can be told, has none.
func (x *examination) next(ctx context.Context) ([]doctor.NextBoot, error) {
	h := handlerOf[*tpm2.Handler](x.app.unlocking)
	list := h.BootTokens(x.volume.tokensOf(h))
	if len(list) == 0 {
		return nil, nil
	}
	present, err := h.PresentPCRs(ctx, chain.Predictable())
	if err != nil {
		return nil, nil // which is said of its tokens
	}
	f, err := forecast.Read(forecast.Request{Host: host.Options{Root: x.app.root, ESP: x.esp, Boot: x.bootPath}, Present: present})
	if errors.Is(err, host.ErrNoLog) || errors.Is(err, chain.ErrNoLog) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return doctor.NextBoots(f, list), nil
}
