package keyarea

import (
	"errors"
	"fmt"
	"io"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// kernelEngine has a cipher of the kernel's crypto API work (AF_ALG, the kernel's
// Documentation/crypto/userspace-if.rst). Each piece is a message that goes there
// with its IV and is read back.
type kernelEngine struct {
	socket  int
	control []byte // direction and IV, as sendmsg(2) takes them
	iv      []byte // inside control
}

// kernelError is a step that the kernel did not take.
type kernelError struct {
	step string
	err  error
}

func (e *kernelError) Error() string { return fmt.Sprintf("%s: %v", e.step, e.err) }

func (e *kernelError) Unwrap() error { return e.err }

// isMissing reports whether the kernel lacks the algorithm or the interface: a
// module may help.
func isMissing(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EAFNOSUPPORT)
}

func newKernelEngine(a algorithm, key []byte, decrypt bool) (engine, error) {
	transform, err := unix.Socket(unix.AF_ALG, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, &kernelError{"opening the kernel's crypto API", err}
	}
	defer unix.Close(transform) // the accepted socket keeps what it needs
	name := a.mode + "(" + a.cipher + ")"
	if err := unix.Bind(transform, &unix.SockaddrALG{Type: "skcipher", Name: name}); err != nil {
		return nil, &kernelError{"finding " + name, err}
	}
	// The string shares the key's memory.
	if err := unix.SetsockoptString(transform, unix.SOL_ALG, unix.ALG_SET_KEY, unsafe.String(&key[0], len(key))); err != nil {
		return nil, &kernelError{"setting the key of " + name, err}
	}
	// unix.Accept wants an address, which older kernels refuse to give.
	socket, _, errno := unix.Syscall6(unix.SYS_ACCEPT4, uintptr(transform), 0, 0, unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, &kernelError{"using " + name, errno}
	}
	e := &kernelEngine{socket: int(socket)}
	e.address(a.ivSize(), decrypt)
	return e, nil
}

// address prepares the control messages.
func (e *kernelEngine) address(ivSize int, decrypt bool) {
	operation := uint32(unix.ALG_OP_ENCRYPT)
	if decrypt {
		operation = unix.ALG_OP_DECRYPT
	}
	op := putControl(&e.control, unix.ALG_SET_OP, 4)
	*(*uint32)(unsafe.Pointer(&op[0])) = operation
	if ivSize > 0 {
		v := putControl(&e.control, unix.ALG_SET_IV, 4+ivSize) // struct af_alg_iv
		*(*uint32)(unsafe.Pointer(&v[0])) = uint32(ivSize)
		e.iv = v[4:]
	}
}

// putControl appends a control message with room for size bytes and returns them.
// What was returned before moves, so the last message is the one to be changed later.
func putControl(list *[]byte, kind int32, size int) []byte {
	m := make([]byte, unix.CmsgSpace(size))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&m[0]))
	h.Level, h.Type = unix.SOL_ALG, kind
	h.SetLen(unix.CmsgLen(size))
	*list = append(*list, m...)
	start := len(*list) - len(m) + unix.CmsgLen(0)
	return (*list)[start : start+size]
}

func (e *kernelEngine) crypt(data, iv []byte) error {
	copy(e.iv, iv)
	if n, err := unix.SendmsgN(e.socket, data, e.control, nil, 0); err != nil || n != len(data) {
		return &kernelError{"giving it a sector", orShort(err)}
	}
	if n, err := unix.Read(e.socket, data); err != nil || n != len(data) {
		return &kernelError{"reading a sector back", orShort(err)}
	}
	return nil
}

// orShort is the error of a call that did less than it should.
func orShort(err error) error {
	if err == nil {
		return io.ErrShortWrite
	}
	return os.NewSyscallError("AF_ALG", err)
}

func (e *kernelEngine) forget() {
	unix.Close(e.socket) // the kernel overwrites its copy of the key
	secret.Wipe(e.control)
}
