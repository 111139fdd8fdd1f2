package askpass

import (
	"bytes"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// Environment holds the secrets that came in environment variables, for example
// PIN. Each value is given out once to each Asker.
type Environment struct{ values map[string]secret.Secret }

// TakeEnvironment moves the values of the variables into locked memory, removes
// the variables, and overwrites the values where they stood: in the Go runtime's
// copy and in the memory that /proc/PID/environ shows. Call it once, at start,
// before other goroutines read the environment; call Close at the end.
//
// What cannot be reached are the memory of the parent process and of the kernel
// until execve had copied it.
func TakeEnvironment(names ...string) *Environment {
	e := &Environment{values: map[string]secret.Secret{}}
	for _, name := range names {
		value, set := os.LookupEnv(name)
		if !set {
			continue
		}
		// The string is memory of the Go heap that nothing but the environment
		// refers to; it is gone from there before the bytes are overwritten.
		_ = os.Unsetenv(name)
		e.values[name] = secret.Take(unsafe.Slice(unsafe.StringData(value), len(value)))
		wipeInitial(name)
	}
	return e
}

// GivenEnvironment stands for variables whose values came another way; empty ones are
// not set. The values are borrowed.
func GivenEnvironment(values map[string]secret.Secret) *Environment {
	e := &Environment{values: map[string]secret.Secret{}}
	for name, value := range values {
		if value.Len() > 0 {
			e.values[name] = value
		}
	}
	return e
}

// Close wipes the values.
func (e *Environment) Close() {
	for _, s := range e.values {
		s.Wipe()
	}
}

// wipeInitial overwrites the value of a variable in the block that execve set up,
// as far as the kernel tells where that is and lets us write.
func wipeInitial(name string) {
	start, end := initialEnvironment()
	if start == 0 || end <= start || end-start > 6<<20 { // 6 MiB is execve's limit
		return
	}
	block := secret.New(int(end - start))
	defer block.Wipe()
	b := block.Bytes()
	local := []unix.Iovec{piece(b)}
	remote := []unix.RemoteIovec{{Base: start, Len: len(b)}}
	if n, err := unix.ProcessVMReadv(unix.Getpid(), local, remote, 0); err != nil || n != len(b) {
		return
	}
	for at := 0; at < len(b); {
		size := bytes.IndexByte(b[at:], 0)
		if size < 0 {
			return
		}
		if entry := b[at : at+size]; bytes.HasPrefix(entry, []byte(name+"=")) {
			overwrite(start+uintptr(at+len(name)+1), size-len(name)-1)
		}
		at += size + 1
	}
}

// overwrite puts n zeros at an address of this process that Go knows no pointer
// to.
func overwrite(address uintptr, n int) {
	if n == 0 {
		return
	}
	zero := make([]byte, n)
	_, _ = unix.ProcessVMWritev(unix.Getpid(), []unix.Iovec{piece(zero)},
		[]unix.RemoteIovec{{Base: address, Len: n}}, 0)
}

func piece(b []byte) unix.Iovec {
	v := unix.Iovec{Base: &b[0]}
	v.SetLen(len(b))
	return v
}

// initialEnvironment is where execve put the environment: fields 50 and 51 of
// proc_pid_stat(5).
func initialEnvironment() (start, end uintptr) {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, 0
	}
	_, rest, found := bytes.Cut(stat[max(bytes.LastIndexByte(stat, ')'), 0):], []byte(" ")) // the name may hold blanks
	fields := bytes.Fields(rest)                                                            // from field 3 on
	if !found || len(fields) < 49 {
		return 0, 0
	}
	from, err1 := strconv.ParseUint(string(fields[47]), 10, 64)
	to, err2 := strconv.ParseUint(string(fields[48]), 10, 64)
	if err1 != nil || err2 != nil {
		return 0, 0
	}
	return uintptr(from), uintptr(to)
}
