//go:build cgo

// Command luksmith-pkcs11 loads PKCS#11 modules on behalf of cryptenroll and
// cryptsetup-unit, which start it and speak to it over stdin and stdout. It is of
// no use to a person.
package main

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"luksmith/internal/helper"
	"luksmith/tokens/pkcs11/wire"
)

func main() {
	// Modules are called from one thread: some misbehave with more.
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", wire.Program, err)
		os.Exit(1)
	}
}

func run() error {
	if err := helper.Confine(); err != nil {
		return err
	}
	in, out, err := takeStandardStreams()
	if err != nil {
		return err
	}
	var s session
	defer s.finish()
	return helper.Serve(wire.Program, in, out, map[string]helper.Method{
		wire.MethodOpen:        s.open,
		wire.MethodTokens:      s.tokens,
		wire.MethodPublicKeys:  s.publicKeys,
		wire.MethodLogin:       s.login,
		wire.MethodPrivateKeys: s.privateKeys,
		wire.MethodDecrypt:     s.decrypt,
		wire.MethodDerive:      s.derive,
		wire.MethodWait:        s.wait,
		wire.MethodClose:       s.close,
	})
}

// takeStandardStreams moves stdin and stdout to descriptors of their own, which no
// module knows: some print to stdout, and that would end up between our messages.
func takeStandardStreams() (in, out *os.File, err error) {
	files := [2]*os.File{}
	for fd := range files {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, nil, fmt.Errorf("duplicating descriptor %d: %w", fd, err)
		}
		files[fd] = os.NewFile(uintptr(n), [2]string{"stdin", "stdout"}[fd])
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("opening /dev/null: %w", err)
	}
	defer unix.Close(null)
	if err := unix.Dup3(null, 0, 0); err != nil {
		return nil, nil, fmt.Errorf("replacing stdin: %w", err)
	}
	if err := unix.Dup3(2, 1, 0); err != nil {
		return nil, nil, fmt.Errorf("replacing stdout: %w", err)
	}
	return files[0], files[1], nil
}

// decode unpacks the parameters of a request.
func decode[T any](r *helper.Request) (T, error) {
	var params T
	err := r.Decode(&params)
	return params, err
}

// open implements wire.MethodOpen.
func (s *session) open(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	params, err := decode[wire.OpenParams](r)
	if err != nil {
		return nil, err
	}
	return nil, s.load(params.Module)
}
