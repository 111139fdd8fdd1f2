package tpm2

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/internal/test/testenv"
	"luksmith/internal/test/tokentest"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
)

// TestGuest… run in a virtual machine of e2e, whose kernel has a TPM.

func TestGuestKernelDevice(t *testing.T) {
	testenv.NeedGuest(t)
	h := &Handler{Device: "auto", WithPIN: PINDirect, PCRs: mustPCRs(t, "7+16:sha256")}
	e := enrolled(t, h, "4711")
	got, err := unlockToken(t, h, asToken(0, e.Token), "wrong", "4711")
	if err != nil || !got.Passphrase.Equal(e.Passphrase) {
		t.Fatal(err)
	}
	table, err := h.Devices(t.Context())
	if err != nil || len(table.Rows) != 1 || table.Rows[0][0] != "auto" && table.Rows[0][0] != "/dev/tpmrm0" || !strings.HasPrefix(table.Rows[0][4], "1 of") {
		t.Errorf("%+v, %v", table, err)
	}
	// The kernel keeps a firmware log; what moves is named.
	c, err := h.connect(t.Context(), "auto")
	if err != nil {
		t.Fatal(err)
	}
	digest := sha256.Sum256([]byte("debug"))
	err = c.Extend(16, map[chip.Bank][]byte{chip.BankSHA256: digest[:]})
	c.Close()
	if err != nil {
		t.Fatal(err)
	}
	if pe := policyError(t, h, e.Token); !slices.Equal(numbers(pe), []int{16}) {
		t.Errorf("%v, want PCR 16", pe)
	}
}

// TestGuestContextEndsAWait: the device is opened without blocking, so a command
// that takes long does not hold the program up.
func TestGuestContextEndsAWait(t *testing.T) {
	testenv.NeedGuest(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	h := &Handler{Device: "/dev/tpmrm0"}
	began := time.Now()
	var err error
	for err == nil { // each makes keys for a while
		var e *tokens.Enrollment
		if e, err = h.Enroll(ctx, &tokens.EnrollRequest{Compat: 252}, tokentest.NewUI(t)); err == nil {
			e.Passphrase.Wipe()
		}
	}
	if !errors.Is(err, context.Canceled) || time.Since(began) > 20*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	// The kernel gave back what was loaded.
	enrolled(t, &Handler{Device: "/dev/tpmrm0"})
}

// TestGuestMeasure extends through the kernel and reads the log back.
func TestGuestMeasure(t *testing.T) {
	testenv.NeedGuest(t)
	h := &Handler{Device: "/dev/tpmrm0", Latch: true}
	e := enrolled(t, h)
	h.Measure = Measurement{PCR: 15}
	key := secretOf(t, 64)
	if m, err := h.MeasureVolumeKey(t.Context(), &MeasureRequest{VolumeKey: key, Name: "root", UUID: measuredUUID}); err != nil || m.LogErr != nil {
		t.Fatalf("%+v, %v", m, err)
	}
	pe := policyError(t, h, e.Token)
	if !slices.Equal(numbers(pe), []int{15}) || !slices.Contains(pe.PCRs[0].Events, "volume-key cryptsetup:root:"+measuredUUID+" is new") {
		t.Errorf("%v", pe)
	}
}
