package tpm2

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens/tpm2/bootrecord"
	"luksmith/tokens/tpm2/chip"
)

// Measurement says where the volume key is to be measured.
type Measurement struct {
	PCR int
	// Banks are names such as sha256; empty means every bank that the TPM keeps.
	Banks []string
}

// MeasureRequest is the volume whose key is measured.
type MeasureRequest struct {
	VolumeKey secret.Secret // borrowed
	Name      string        // mapping name
	UUID      string        // of the LUKS2 header
}

// Measured is the result of MeasureVolumeKey.
type Measured struct {
	PCR   int
	Banks []string
	// LogErr is why the event could not be written to the log of user space. The
	// PCR has been extended all the same, so later predictions lack the event.
	LogErr error
}

// MeasureVolumeKey extends a PCR with an HMAC over the names of the volume, keyed
// with its volume key: whoever reads the PCR knows which volumes were opened, and
// a key bound to the earlier value (--tpm2-latch) cannot be unsealed any more.
// Where to is in [Handler.Measure]. The event is appended to systemd's log (systemd
// 262 src/shared/tpm2-util.c, tpm2_pcr_extend_bytes).
func (h *Handler) MeasureVolumeKey(ctx context.Context, req *MeasureRequest) (*Measured, error) {
	c, err := h.connect(ctx, h.unlockDeviceOr())
	if err != nil {
		return nil, err
	}
	defer c.Close()
	banks, err := h.measureBanks(c)
	if err != nil {
		return nil, err
	}
	event := volumeKeyEvent(req, h.Measure.PCR, banks)
	m := &Measured{PCR: h.Measure.PCR}
	for _, b := range banks {
		m.Banks = append(m.Banks, b.String())
	}
	log, err := openMeasureLog(ctx, h.Paths)
	if err != nil {
		m.LogErr = err
	}
	if err := event.extend(c); err != nil {
		log.abandon()
		return nil, fmt.Errorf("measuring the volume key into PCR %d: %w", h.Measure.PCR, err)
	}
	if log != nil {
		m.LogErr = log.append(event)
	}
	return m, nil
}

func (h *Handler) measureBanks(c *chip.Conn) ([]chip.Bank, error) {
	if len(h.Measure.Banks) == 0 {
		return c.Banks()
	}
	var list []chip.Bank
	for _, name := range h.Measure.Banks {
		b, err := chip.ParseBank(name)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// StubMeasured reports whether the boot stub measured the kernel, which is when
// systemd measures volume keys: the variable StubPcrKernelImage is there.
func (h *Handler) StubMeasured() bool {
	_, err := os.Stat(h.Paths.join("/sys/firmware/efi/efivars/StubPcrKernelImage-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"))
	return err == nil
}

// FixateValue is the value of crypttab's fixate-volume-key= for a volume: whoever
// exchanges the volume for one with another key is found out before it is used.
func FixateValue(volumeKey secret.Secret, name, uuid string) string {
	return hex.EncodeToString(keyedDigest(chip.BankSHA256, volumeKey, measuredText(name, uuid)))
}

// measuredText names a volume. A colon in the mapping name is escaped.
func measuredText(name, uuid string) string {
	var b strings.Builder
	for _, c := range []byte(name) {
		if c < ' ' || c >= 0x7f || c == ':' || c == '\\' {
			fmt.Fprintf(&b, `\x%02x`, c)
		} else {
			b.WriteByte(c)
		}
	}
	return "cryptsetup:" + b.String() + ":" + uuid
}

func keyedDigest(b chip.Bank, key secret.Secret, text string) []byte {
	return luks2.HMAC(b.String(), key, []byte(text))
}

// measureEvent is a record of the log of user space.
type measureEvent struct {
	PCR         int            `json:"pcr"`
	Digests     []eventDigest  `json:"digests"`
	ContentType string         `json:"content_type"`
	Content     measureContent `json:"content"`
}

type eventDigest struct {
	HashAlg string `json:"hashAlg"`
	Digest  string `json:"digest"`
}

type measureContent struct {
	String    string `json:"string"`
	BootID    string `json:"bootId"`
	Timestamp int64  `json:"timestamp"` // µs of CLOCK_BOOTTIME
	EventType string `json:"eventType"`
}

func volumeKeyEvent(req *MeasureRequest, pcr int, banks []chip.Bank) *measureEvent {
	text := measuredText(req.Name, req.UUID)
	e := &measureEvent{PCR: pcr, ContentType: "systemd", Content: measureContent{String: text, EventType: "volume-key"}}
	for _, b := range banks {
		e.Digests = append(e.Digests, eventDigest{b.String(), hex.EncodeToString(keyedDigest(b, req.VolumeKey, text))})
	}
	return e
}

// extend has the TPM extend the PCR in all banks of the event at once.
func (e *measureEvent) extend(c *chip.Conn) error {
	values := map[chip.Bank][]byte{}
	for _, d := range e.Digests {
		b, err := chip.ParseBank(d.HashAlg)
		if err != nil {
			return err
		}
		if values[b], err = hex.DecodeString(d.Digest); err != nil {
			return err
		}
	}
	return c.Extend(e.PCR, values)
}

// measureLog is systemd's log of user space, locked. While the sticky bit is set,
// the TPM may have been extended without an entry.
type measureLog struct {
	file   *os.File
	bootID string
	mode   fs.FileMode
	dirty  bool // it was found with the sticky bit set, and keeps it
}

// openMeasureLog locks the log and marks it as incomplete.
func openMeasureLog(ctx context.Context, p Paths) (*measureLog, error) {
	id, err := bootrecord.CurrentID(p.Root)
	if err != nil {
		return nil, err
	}
	path := p.userspaceLog()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	l := &measureLog{file: f, bootID: strings.ReplaceAll(id, "-", "")}
	if err := l.lock(ctx); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return l, nil
}

// lock waits for others, but not beyond the context: a blocked flock would not
// hear of its end.
func (l *measureLog) lock(ctx context.Context) error {
	for {
		err := unix.Flock(int(l.file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			break
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	info, err := l.file.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	l.mode = info.Mode().Perm()
	l.dirty = info.Mode()&fs.ModeSticky != 0
	return l.file.Chmod(l.mode | fs.ModeSticky)
}

// abandon gives the log back when nothing was extended. It may be called on nil.
func (l *measureLog) abandon() {
	if l == nil {
		return
	}
	_ = l.clear()
	_ = l.file.Close()
}

func (l *measureLog) clear() error {
	if l.dirty {
		return nil
	}
	return l.file.Chmod(l.mode)
}

// append writes the event and takes the mark away.
func (l *measureLog) append(e *measureEvent) error {
	defer l.file.Close()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return err
	}
	e.Content.BootID, e.Content.Timestamp = l.bootID, now.Nano()/1000
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := l.file.Write(append(append([]byte{0x1e}, text...), '\n')); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	return l.clear()
}
