package dmcrypt

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// udevLimit is how long a mapping waits for udevd. libdevmapper waits forever;
// here, what udevd has not done by then is done without it.
const udevLimit = 30 * time.Second

// Of libdevmapper.h: what a cookie's upper half says to udev's rules.
const (
	udevDisableLibraryFallback = 0x0020
	udevPrimarySource          = 0x0040
	udevFlagsShift             = 16
	cookieMagic                = 0x0d4d << 16 // upper half of the semaphore's key
)

// UdevRuns reports whether a udevd runs.
func UdevRuns() bool { return socketLives("/run/udev/control") }

// socketLives reports whether somebody listens on a socket, of whatever type:
// systemd 262 has a stream where older ones have packets.
func socketLives(path string) bool {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	return err == nil || err == unix.EAGAIN || // its queue is full
		err == unix.EPROTOTYPE // another type; ECONNREFUSED if nobody listened
}

// udevWorks reports whether a udevd runs and has the rule that answers cookies;
// without the rule nobody would.
func udevWorks() bool {
	if !UdevRuns() {
		return false
	}
	for _, dir := range []string{"/etc", "/run", "/usr/lib", "/lib"} {
		if m, _ := filepath.Glob(dir + "/udev/rules.d/*-dm-notify.rules"); len(m) > 0 {
			return true
		}
	}
	return false
}

// cookie is a System V semaphore by which udevd tells that it has dealt with an
// event: the kernel puts the key's lower half into the event, and udev's rule
// runs `dmsetup udevcomplete` with it. The protocol is libdevmapper's
// (dm_udev_create_cookie, dm_udev_wait): the value is 2 until udev has taken one,
// the waiter takes the other and waits for 0.
type cookie struct {
	id    int // of the semaphore; -1 without udev
	event uint32
}

// newCookie makes a cookie, or one that is never waited for where udev does not
// work. Its event is for call.event. Beside an error, such as a lack of semaphores
// or of System V IPC in the kernel, stands a cookie that is never waited for too.
func newCookie() (*cookie, error) {
	c := &cookie{id: -1, event: udevPrimarySource << udevFlagsShift}
	if !udevWorks() {
		return c, nil
	}
	for range 100 { // until the key is free
		var b [2]byte
		rand.Read(b[:])
		low := uint32(binary.NativeEndian.Uint16(b[:]))
		if low == 0 {
			continue
		}
		id, err := semget(cookieMagic|low, unix.IPC_CREAT|unix.IPC_EXCL|0o600)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return c, fmt.Errorf("making a cookie for udev, going on without: %w", err)
		}
		if err := semctl(id, semSetVal, 2); err != nil {
			_ = semctl(id, unix.IPC_RMID, 0)
			return c, fmt.Errorf("setting a cookie for udev, going on without: %w", err)
		}
		c.id = id
		c.event |= udevDisableLibraryFallback<<udevFlagsShift | low
		return c, nil
	}
	return c, errors.New("making a cookie for udev, going on without: all keys are taken")
}

// wait waits until udev has dealt with the event of a call, if the kernel sent
// one, and removes the cookie. Only the context's end is an error.
func (c *cookie) wait(ctx context.Context, a *answer) error {
	if c.id < 0 {
		return ctx.Err()
	}
	defer c.remove()
	if a == nil || a.Flags&unix.DM_UEVENT_GENERATED_FLAG == 0 || semop(c.id, -1) != nil {
		return ctx.Err()
	}
	done := make(chan struct{})
	go func() {
		for semop(c.id, 0) == unix.EINTR { // removing the semaphore ends it with EIDRM
		}
		close(done)
	}()
	limit := time.NewTimer(udevLimit)
	defer limit.Stop()
	select {
	case <-done:
		return nil
	case <-limit.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *cookie) remove() {
	if c.id >= 0 {
		_ = semctl(c.id, unix.IPC_RMID, 0)
		c.id = -1
	}
}

const semSetVal = 16 // SETVAL of <linux/sem.h>

func semget(key uint32, flags int) (int, error) {
	id, _, errno := unix.Syscall(unix.SYS_SEMGET, uintptr(key), 1, uintptr(flags))
	if errno != 0 {
		return -1, errno
	}
	return int(id), nil
}

// semctl passes a value as the C library does: it is an int in a union of the size of a
// pointer, of which the word in the register holds the bytes as memory does.
func semctl(id, command int, value int32) error {
	var union uintptr
	*(*int32)(unsafe.Pointer(&union)) = value
	_, _, errno := unix.Syscall6(unix.SYS_SEMCTL, uintptr(id), 0, uintptr(command), union, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// semop adds to the semaphore, or waits for it to become zero. It has no limit of time,
// but not every processor has the system call without one.
func semop(id int, op int16) error {
	s := struct {
		num     uint16
		op, flg int16
	}{op: op}
	_, _, errno := unix.Syscall6(sysSemtimedop, uintptr(id), uintptr(unsafe.Pointer(&s)), 1, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
