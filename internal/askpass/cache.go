package askpass

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2/secret"
)

// CacheMode is crypttab's password-cache=: what to do with the kernel keyring,
// where one answer can serve several volumes. The zero value leaves it alone.
type CacheMode int

// The modes.
const (
	CacheNo CacheMode = iota
	CacheYes
	CacheReadOnly
)

// cacheTime is how long an answer stays, as in systemd (KEYRING_TIMEOUT_USEC).
const cacheTime = 150 * time.Second

// maxCached is the largest payload of a key of type "user": security/keys of the
// kernel, user_preparse.
const maxCached = 32767

// cacheable reports whether the keyring may answer the question.
func (q *Question) cacheable(mode CacheMode) bool {
	return mode != CacheNo && q.Keyring != "" && !q.New && !q.Verify
}

// cache remembers what the keyring held when it was last looked at, so that the
// same wrong answers are not given twice.
type cache struct {
	mu   sync.Mutex
	seen map[string]secret.Secret // by description; the joined list
}

// news returns the answers that the keyring holds, if they are not those of the
// last call; false if there is nothing new. A keyring that cannot be read has
// none: somebody is asked then.
func (c *cache) news(name string) ([]secret.Secret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list, err := readKeyring(name)
	if err != nil || len(list) == 0 {
		return nil, false
	}
	payload := joinList(list)
	if payload.Equal(c.seen[name]) {
		payload.Wipe()
		secret.WipeAll(list)
		return nil, false
	}
	if c.seen == nil {
		c.seen = map[string]secret.Secret{}
	}
	c.seen[name].Wipe()
	c.seen[name] = payload
	return list, true
}

// forget has the next news return what the keyring holds, known or not.
func (c *cache) forget(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[name].Wipe()
	delete(c.seen, name)
}

func (c *cache) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, s := range c.seen {
		s.Wipe()
		delete(c.seen, name)
	}
}

// Remember puts an answer that was right into the keyring, for other volumes and
// for systemd's programs, and wakes those that are asking for it. It does nothing
// unless the cache mode is yes.
//
// Unlike systemd, which caches every answer when it is typed, nobody but the
// caller knows which answer was right: a wrong one is never cached.
func (a *Asker) Remember(keyring string, s secret.Secret) error {
	if a.o.Cache != CacheYes || keyring == "" {
		return nil
	}
	if err := addToKeyring(keyring, s); err != nil {
		return fmt.Errorf("caching the answer in the kernel keyring: %w", err)
	}
	if a.o.AgentDir != "" {
		// systemd's prompts and ours look into the keyring again when the folder
		// changes its times; without one nobody waits.
		_ = unix.UtimesNano(a.o.AgentDir, []unix.Timespec{{Nsec: unix.UTIME_NOW}, {Nsec: unix.UTIME_NOW}})
	}
	return nil
}

// fromCache waits until the keyring holds something new: another volume was
// opened meanwhile.
func (p *Pending) fromCache(ctx context.Context, _ view) (Answer, error) {
	watch, err := watchFolder(p.asker.o.AgentDir)
	if err != nil {
		return Answer{}, err
	}
	defer watch.Close()
	stop := context.AfterFunc(ctx, func() { _ = watch.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]byte, 4096)
	for {
		if list, ok := p.asker.cache.news(p.q.Keyring); ok {
			return Answer{Secrets: list, Source: FromCache, Name: p.q.Keyring}, nil
		}
		if _, err := watch.Read(events); err != nil {
			if ctx.Err() != nil {
				err = cause(ctx)
			}
			return Answer{}, err
		}
	}
}

// watchFolder reports changes of a folder's times.
func watchFolder(dir string) (*os.File, error) {
	if dir == "" {
		dir = AgentDir
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	f := os.NewFile(uintptr(fd), dir)
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_ATTRIB|unix.IN_ONLYDIR); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("watching %s: %w", dir, err)
	}
	return f, nil
}

// withUserKeyring runs f on a thread of its own that possesses the user keyring:
// possession is what allows to read a key, and a session does not always link it.
// The thread ends with f, and with it the link.
func withUserKeyring(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is not reused
		_, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// findKey returns the serial number of a key of type "user". As systemd's
// request_key does, it looks into the session keyring too; but unix.RequestKey
// would have the kernel start a program for a key that is not there.
func findKey(name string) (int, error) {
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", name, 0)
	if err != nil {
		id, err = unix.KeyctlSearch(unix.KEY_SPEC_SESSION_KEYRING, "user", name, 0)
	}
	return id, err
}

// readKeyring returns the list that a key holds; no key gives an error.
func readKeyring(name string) (list []secret.Secret, err error) {
	err = withUserKeyring(func() error {
		list, err = readKey(name)
		return err
	})
	return list, err
}

func readKey(name string) ([]secret.Secret, error) {
	id, err := findKey(name)
	if err != nil {
		return nil, err
	}
	buffer := secret.New(maxCached)
	defer buffer.Wipe()
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buffer.Bytes(), 0)
	if err != nil {
		return nil, err
	}
	return splitList(buffer.Bytes()[:min(n, maxCached)]), nil
}

// addToKeyring appends an answer to the key's list, or makes the key, and starts
// its time anew.
func addToKeyring(name string, s secret.Secret) error {
	return withUserKeyring(func() error {
		list, err := readKey(name)
		if err != nil && !errors.Is(err, unix.ENOKEY) && !errors.Is(err, unix.EKEYEXPIRED) && !errors.Is(err, unix.EKEYREVOKED) {
			return err
		}
		defer func() { secret.WipeAll(list) }()
		if !slices.ContainsFunc(list, s.Equal) {
			list = append(list, s.Clone())
		}
		payload := joinList(list)
		defer payload.Wipe()
		if payload.Len() == 0 || payload.Len() > maxCached {
			return nil // the kernel takes no empty key; a longer one nobody could read
		}
		id, err := unix.AddKey("user", name, payload.Bytes(), unix.KEY_SPEC_USER_KEYRING)
		if err != nil {
			return err
		}
		_, err = unix.KeyctlInt(unix.KEYCTL_SET_TIMEOUT, id, int(cacheTime/time.Second), 0, 0)
		return err
	})
}
