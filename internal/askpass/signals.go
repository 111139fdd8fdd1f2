package askpass

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
)

// signalWatch keeps a Console right when the process is stopped and continued
// while a question is open.
type signalWatch struct {
	received chan os.Signal
	done     chan struct{}
}

// watchSignals begins to listen. SIGINT and the like are not the Console's: they
// end the context of the question.
func (c *Console) watchSignals() *signalWatch {
	w := &signalWatch{received: make(chan os.Signal, 8), done: make(chan struct{})}
	for _, s := range []os.Signal{unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH, unix.SIGQUIT} {
		if !signal.Ignored(s) {
			signal.Notify(w.received, s)
		}
	}
	go func() {
		defer close(w.done)
		for s := range w.received {
			switch s {
			case unix.SIGTSTP:
				c.suspend()
			case unix.SIGCONT:
				c.resumed()
			case unix.SIGWINCH:
				c.resized()
			case unix.SIGQUIT:
				c.quit()
			}
		}
	}()
	return w
}

func (w *signalWatch) stop() {
	signal.Stop(w.received)
	close(w.received)
	<-w.done
}

// suspend restores the terminal, stops the process as SIGTSTP does by default,
// and shows the question again when it continues. What was typed into it stays.
func (c *Console) suspend() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if orphanedGroup() {
		return // nobody could continue the process: the kernel ignores the signal then
	}
	if c.tty.saved == nil {
		stopProcess()
		return
	}
	c.screen.clear()
	c.tty.restore()
	stopProcess()
	c.continued = true
	if _, err := c.tty.take(); err != nil {
		c.fail(err)
		return
	}
	c.redraw()
}

// stopProcess returns when the process has stopped and continued. SIGTSTP's
// default action is out of reach once the Go runtime has a handler for it:
// signal.Reset makes it ignored. SIGSTOP goes to this very thread, because another
// one might take its time.
func stopProcess() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// orphanedGroup reports whether no process of our session outside of our process
// group, such as a shell, is an ancestor: POSIX's orphaned process group, seen
// from this process.
func orphanedGroup() bool {
	session, _ := unix.Getsid(0)
	group := unix.Getpgrp()
	for pid := unix.Getppid(); pid > 1; pid = parentOf(pid) {
		s, err := unix.Getsid(pid)
		if err != nil || s != session {
			return true
		}
		if g, err := unix.Getpgid(pid); err != nil || g != group {
			return err != nil
		}
	}
	return true
}

// parentOf is field 4 of proc_pid_stat(5); 0 if the process is gone.
func parentOf(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the name may hold blanks
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(fields[1]))
	return parent
}

// quit restores the terminal and lets SIGQUIT have the effect that it has on Go
// programs.
func (c *Console) quit() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.screen.clear()
	c.tty.restore()
	signal.Reset(unix.SIGQUIT)
	_ = unix.Kill(unix.Getpid(), unix.SIGQUIT)
}

// resumed repairs the terminal after SIGSTOP, which cannot be heard, and SIGCONT.
func (c *Console) resumed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	drawn := c.continued // by suspend, which gets this signal too
	c.continued = false
	if c.tty.saved == nil {
		return
	}
	if err := c.tty.apply(); err != nil {
		c.fail(err)
		return
	}
	if !drawn {
		c.screen.forget()
		c.redraw()
	}
}

func (c *Console) resized() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && c.screen.rows > 0 && !c.screen.dumb {
		c.redraw()
	}
}

// untilInterrupted ends the context at SIGINT, SIGTERM and SIGHUP with a
// cli.SignalError. Unlike cli.WithSignals it holds off further signals until stop
// is called, so that an impatient person cannot keep the terminal from being
// restored.
func untilInterrupted(parent context.Context) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	received := make(chan os.Signal, 1)
	for _, s := range []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(received, s)
		}
	}
	go func() {
		select {
		case s := <-received:
			cancel(&cli.SignalError{Signal: s})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(received)
		cancel(nil)
	}
}
