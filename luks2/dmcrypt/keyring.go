package dmcrypt

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// withKey calls f while the key is in the thread keyring under that name, as a
// logon key, which no program can read back.
//
// A thread keyring belongs to one OS thread, and Go moves goroutines between
// threads: adding the key, loading the table, which looks the key up, and what f
// does besides all happen on one locked thread. It is never unlocked, so it ends
// with its goroutine, and the keyring with it.
func withKey(name string, key secret.Secret, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- addKeyFor(name, key, f)
	}()
	return <-result
}

func addKeyFor(name string, key secret.Secret, f func() error) error {
	id, err := unix.AddKey("logon", name, key.Bytes(), unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return fmt.Errorf("handing the volume key to the kernel: %w", err)
	}
	err = f()
	// dm-crypt has copied the key when the table was loaded.
	if _, uerr := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); uerr != nil && err == nil {
		err = fmt.Errorf("taking the volume key out of the keyring: %w", uerr)
	}
	return err
}
