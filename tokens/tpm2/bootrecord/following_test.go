package bootrecord

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestOneFollowsAtATime(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	unlock, err := LockFollowing(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*lockPoll)
	defer stop()
	if _, err := LockFollowing(ctx, root); !errors.Is(err, ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second one: %v", err)
	}
	time.AfterFunc(3*lockPoll, unlock)
	second, err := LockFollowing(t.Context(), root)
	if err != nil {
		t.Fatalf("after the first one: %v", err)
	}
	second()
	if err := State(root).Update(bootID, func(*Boot) error { return nil }); err != nil {
		t.Errorf("records are kept from being written: %v", err)
	}
}

func TestMachineIDsAreKept(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	f := &Following{ESP: "/mnt/esp", Boot: "/mnt/boot"}
	for n := range maxMachines + 2 {
		if id := fmt.Sprintf("%032x", n); !f.AddMachine(id) || f.AddMachine(id) {
			t.Errorf("%s is not new, or twice", id)
		}
	}
	if f.AddMachine("") || len(f.Machines) != maxMachines || f.Machines[0] != fmt.Sprintf("%032x", 2) {
		t.Errorf("%q", f.Machines)
	}
	if err := f.Write(root); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadFollowing(root); err != nil || got.ESP != f.ESP || got.Boot != f.Boot || len(got.Machines) != maxMachines {
		t.Errorf("%+v, %v", got, err)
	}
	f.Machines = append(f.Machines, "more")
	if err := f.Write(root); !errors.Is(err, ErrFormat) {
		t.Errorf("too many: %v", err)
	}
}
