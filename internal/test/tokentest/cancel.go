package tokentest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"luksmith/tokens"
)

const (
	// soon is how long a call may take to notice that its context ended.
	soon = 2 * time.Second
	// settling is how long goroutines and children may take to be gone.
	settling = 2 * time.Second
)

// cancellations ends the context before, during and at every question of a call
// that asks for answers, and has the person give up at every question.
func (s Subject) cancellations(t *testing.T, answers []string, call func(context.Context, *UI) error) {
	for _, delay := range []time.Duration{0, time.Millisecond, 4 * time.Millisecond, 15 * time.Millisecond, 60 * time.Millisecond} {
		t.Run(fmt.Sprintf("after %v", delay), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			if delay == 0 {
				cancel()
			}
			stop := time.AfterFunc(delay, cancel)
			defer stop.Stop()
			leavesNothing(t, ctx, func() {
				err := call(ctx, &UI{t: t, answers: Typed(answers...)}) // without the check for answers left over
				if err != nil && !errors.Is(err, context.Canceled) || err == nil && delay == 0 {
					t.Errorf("%v, want the context's error", err)
				}
			})
			cancel()
		})
	}
	for i := range answers {
		t.Run(fmt.Sprintf("at question %d", i), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			last := Answer{Wait: true, Before: func(tokens.Prompt) { time.AfterFunc(5*time.Millisecond, cancel) }}
			leavesNothing(t, ctx, func() {
				if err := call(ctx, NewUI(t, append(Typed(answers[:i]...), last)...)); !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want the context's error", err)
				}
			})
		})
		t.Run(fmt.Sprintf("by the person at question %d", i), func(t *testing.T) {
			ui := NewUI(t, append(Typed(answers[:i]...), Answer{Err: tokens.ErrCancelled})...)
			leavesNothing(t, t.Context(), func() {
				if err := call(t.Context(), ui); !errors.Is(err, tokens.ErrCancelled) {
					t.Errorf("%v, want ErrCancelled", err)
				}
			})
		})
	}
}

// leavesNothing runs f, which must return soon after ctx ends and leave no
// goroutine and no child process.
func leavesNothing(t *testing.T, ctx context.Context, f func()) {
	t.Helper()
	goroutines, processes := runtime.NumGoroutine(), children(t)
	ended := make(chan time.Time, 1)
	stop := context.AfterFunc(ctx, func() { ended <- time.Now() })
	f()
	returned := time.Now()
	if !stop() {
		if late := returned.Sub(<-ended); late > soon {
			t.Errorf("returned %v after the context ended, want %v", late, soon)
		}
	}
	for deadline := time.Now().Add(settling); ; time.Sleep(5 * time.Millisecond) {
		more := slices.DeleteFunc(children(t), func(pid string) bool { return slices.Contains(processes, pid) })
		if runtime.NumGoroutine() <= goroutines && len(more) == 0 {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("left behind: %d goroutines, processes %v\n%s", runtime.NumGoroutine()-goroutines, more, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// children are the process ids of this process's children.
func children(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, f := range files {
		b, _ := os.ReadFile(f) // the thread may have ended
		list = append(list, strings.Fields(string(b))...)
	}
	return list
}
