package dmcrypt

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/anatol/devmapper.go"
	"golang.org/x/sys/unix"
)

// Attach maps a volume. When it returns nil, /dev/mapper/NAME is there and can be
// read; otherwise nothing is mapped that was not before, also when the context
// ended in the middle.
//
// Errors: [ErrActive], [ErrNameTaken], [ErrName], [ErrInUse], [ErrDevice],
// [ErrUnsupported], the context's, and the kernel's.
func Attach(ctx context.Context, r *Request) error {
	m, err := r.validate()
	if err != nil {
		return err
	}
	if err := m.freeName(ctx); err != nil {
		return err
	}
	version, err := targetVersion("crypt")
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	s, err := r.openSource()
	if err != nil {
		return err
	}
	defer s.close()
	return m.activate(ctx, s, m.Flags.supported(version))
}

// CheckKernel reports a kernel without dm-crypt, before anybody is asked for a key.
// It has the kernel load the module.
//
// Errors: [ErrUnsupported].
func CheckKernel() error {
	_, err := targetVersion("crypt")
	return err
}

// supported leaves out the flags that the kernel's target crypt is too old for.
func (f Flags) supported(version [3]uint32) Flags {
	for _, n := range flagNames() {
		if version[0] == 1 && version[1] < n.since {
			f &^= n.flag
		}
	}
	return f
}

// checkName checks whether the name is taken, and by what.
func (m *mapping) checkName() error {
	info, err := lookUp(m.name)
	if errors.Is(err, ErrNotActive) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.UUID != m.uuid {
		return fmt.Errorf("%q: %w by a mapping with the UUID %q", m.Name, ErrNameTaken, info.UUID)
	}
	active, err := Status(m.Name)
	if err != nil {
		return err
	}
	if active.Source == "" {
		return fmt.Errorf("%q: %w by a mapping without a table: %w", m.Name, ErrNameTaken, errUnfinished)
	}
	if !active.over(m.Device) {
		return fmt.Errorf("%q: %w by a volume of the same UUID on %s", m.Name, ErrNameTaken, active.Source)
	}
	return fmt.Errorf("%q: %w", m.Name, ErrActive)
}

// errUnfinished: a mapping of the same volume has no table yet.
var errUnfinished = errors.New("somebody is making it, or was killed doing so")

// How long a mapping without a table is left to whoever may be making it: loading
// a table can mean loading modules.
const (
	unfinishedTries = 25
	unfinishedPause = 200 * time.Millisecond
)

// freeName is checkName, but waits for whoever is making the mapping right now,
// and takes away what a killed process has left: a mapping of this volume that
// has no table and is not open. It would be in the way until the next boot.
func (m *mapping) freeName(ctx context.Context) error {
	err := m.checkName()
	for try := 1; errors.Is(err, errUnfinished) && try < unfinishedTries; try++ {
		if err := sleep(ctx, unfinishedPause); err != nil {
			return err
		}
		err = m.checkName()
	}
	if !errors.Is(err, errUnfinished) {
		return err
	}
	if _, err := remove(ctx, m.name, 0); err != nil && !errors.Is(err, ErrNotActive) {
		return fmt.Errorf("taking an unfinished mapping away: %w", err)
	}
	m.warn(fmt.Errorf("took away the mapping %q, which had no table: a program was killed while it made it", m.Name))
	return nil
}

func sleep(ctx context.Context, pause time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(pause):
		return nil
	}
}

// lookUp asks for a mapping by its mangled name.
func lookUp(name string) (*devmapper.DeviceInfo, error) {
	control, err := openControl() // devmapper.go expects the node
	if err != nil {
		return nil, err
	}
	_ = control.Close()
	info, err := devmapper.InfoByName(name)
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("%q: %w", unmangle(name), ErrNotActive)
	}
	if err != nil {
		return nil, fmt.Errorf("looking for the mapping %q: %w", unmangle(name), err)
	}
	return info, nil
}

// activate makes the mapping on an open device, and takes it away again if
// anything fails.
func (m *mapping) activate(ctx context.Context, s *source, flags Flags) error {
	sectors, err := s.fit(m)
	if err != nil {
		return err
	}
	params := m.params(s, flags)
	defer params.Wipe()
	line := target("crypt", sectors, params.Bytes())
	defer line.Wipe()
	readOnly := uint32(0)
	if m.ReadOnly || s.readOnly {
		readOnly = unix.DM_READONLY_FLAG
	}
	if err := devmapper.Create(m.name, m.uuid); err != nil {
		return m.createError(err)
	}
	if err := m.fill(ctx, s, &call{name: m.name, flags: readOnly, targets: line.Bytes(), count: 1}); err != nil {
		// Not with ctx, which may be what ended it.
		if _, rerr := remove(context.WithoutCancel(ctx), m.name, 0); rerr != nil && !errors.Is(rerr, ErrNotActive) {
			return fmt.Errorf("%w (and it could not be taken back: %w)", err, rerr)
		}
		return err
	}
	return nil
}

// createError explains why a mapping of that name or UUID cannot be made.
func (m *mapping) createError(err error) error {
	if errors.Is(err, unix.EBUSY) { // another process was faster
		if taken := m.checkName(); taken != nil {
			return taken
		}
		return fmt.Errorf("%q: %w: another mapping has the UUID %q", m.Name, ErrNameTaken, m.uuid)
	}
	return fmt.Errorf("making the mapping %q: %w", m.Name, err)
}

// fill loads the table into a new mapping and resumes it, with the volume key in
// the thread keyring meanwhile if the table names it there.
func (m *mapping) fill(ctx context.Context, s *source, load *call) error {
	start := func() error {
		if _, err := load.do(unix.DM_TABLE_LOAD); err != nil {
			return m.loadError(err, s)
		}
		if err := m.confirm(ctx); err != nil {
			return err
		}
		return m.resume(ctx)
	}
	var err error
	if m.Type == LUKS2 {
		err = withKey(m.keyName(), m.Key, start)
	} else {
		err = start()
	}
	if err != nil {
		return err
	}
	return m.finish(ctx, s)
}

// confirm asks whoever made the request, now that the device cannot be exchanged.
func (m *mapping) confirm(ctx context.Context) error {
	if err := ctx.Err(); err != nil || m.Confirm == nil {
		return err
	}
	return m.Confirm(ctx)
}

// resume brings the table to life and waits for udev.
func (m *mapping) resume(ctx context.Context) error {
	c, err := newCookie()
	m.warn(err)
	a, err := (&call{name: m.name, event: c.event}).do(unix.DM_DEV_SUSPEND) // without DM_SUSPEND_FLAG it resumes
	if werr := c.wait(ctx, a); err == nil {
		err = werr
	}
	if err != nil {
		return fmt.Errorf("starting the mapping %q: %w", m.Name, err)
	}
	return nil
}

// finish makes what udev did not, and passes the read-ahead on.
func (m *mapping) finish(ctx context.Context, s *source) error {
	info, err := lookUp(m.name)
	if err != nil {
		return err
	}
	awaitNode(ctx, m.name, info.DevNo)
	if err := m.ensureNode(info.DevNo); err != nil {
		return err
	}
	if f, err := os.Open(nodePath(m.name)); err == nil {
		s.passReadAhead(f)
		_ = f.Close()
	}
	return nil
}

// loadError says what the kernel's errors for a table mean. The reason itself
// only goes to the kernel's log.
func (m *mapping) loadError(err error, s *source) error {
	what := fmt.Sprintf("mapping %s with cipher %s and a key of %d bits", s.path, m.Segment.Encryption, 8*m.Key.Len())
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL):
		return fmt.Errorf("%s: %w by this kernel: a cipher module is missing, or the header is wrong (see dmesg): %w", what, ErrUnsupported, err)
	case errors.Is(err, unix.EBUSY):
		return &InUseError{Device: s.path, Name: mappingOn(s.dev)}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// volumeUUID puts the dashes back into the UUID of a mapping.
func volumeUUID(hex string) string {
	if len(hex) != 32 {
		return ""
	}
	return strings.Join([]string{hex[:8], hex[8:12], hex[12:16], hex[16:20], hex[20:]}, "-")
}
