package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"luksmith/tokens"
)

// SignalError is the cause of a context that a signal ended. It is both
// [tokens.ErrCancelled] and [context.Canceled].
type SignalError struct{ Signal os.Signal }

func (e *SignalError) Error() string {
	if e.Signal == unix.SIGINT { // the person knows how
		return "interrupted"
	}
	if s, ok := e.Signal.(unix.Signal); ok {
		return "interrupted by " + unix.SignalName(s)
	}
	return fmt.Sprintf("interrupted by signal %v", e.Signal)
}

// Is makes errors.Is true for both sentinels.
func (e *SignalError) Is(target error) bool {
	return target == tokens.ErrCancelled || target == context.Canceled
}

// WithSignals returns a context that SIGINT, SIGTERM or SIGHUP cancels, with a
// [SignalError] as its cause. The first signal lets the command tidy up; from
// then on a second one has its default effect and ends the process at once.
// stop gives the signals back.
//
// SIGPIPE no longer ends the process: a write to a standard stream whose reader is
// gone fails instead, so that a command whose result nobody reads can take it back.
func WithSignals(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signal.Notify(make(chan os.Signal, 1), unix.SIGPIPE) // not Ignore, which helper programs would inherit
	received := make(chan os.Signal, 1)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) { // nohup and background jobs of scripts
			signal.Notify(received, s)
		}
	}
	go func() {
		select {
		case s := <-received:
			cancel(&SignalError{s})
		case <-ctx.Done():
		}
		signal.Stop(received)
	}()
	return ctx, func() { cancel(context.Canceled) }
}
