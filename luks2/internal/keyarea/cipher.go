package keyarea

import (
	"fmt"
	"strings"

	"luksmith/luks2/secret"
)

// Cipher is a sector encryption under the name that dm-crypt gives it. AES in the
// modes that cryptsetup makes volumes with is computed here, on any machine;
// everything else by the kernel, as libcryptsetup has it.
type Cipher struct {
	Name string
	algorithm
}

// engine encrypts or decrypts, in place, sectors or single blocks that begin with
// an IV.
type engine interface {
	crypt(data, iv []byte) error
	forget()
}

// CipherError says that a key area cannot be computed here.
type CipherError struct {
	Name    string
	KeySize int // bytes
	// Modules are what the running kernel lacks, if it is that.
	Modules []string
	Err     error // nil for a name that means nothing here
}

func (e *CipherError) Error() string {
	s := fmt.Sprintf("cannot open this key area: cipher %q with a key of %d bits ", e.Name, e.KeySize*8)
	switch {
	case len(e.Modules) > 0:
		return s + fmt.Sprintf("needs the kernel's modules %s: %v", strings.Join(e.Modules, ", "), e.Err)
	case e.Err != nil:
		return s + "is refused by the kernel: " + e.Err.Error()
	}
	return s + "is not known here"
}

// Unwrap gives the kernel's answer.
func (e *CipherError) Unwrap() error { return e.Err }

// ByName finds a cipher for keys of that many bytes. Its error is a [CipherError].
// The kernel is asked whether it has those that are not computed here, and loads
// their modules then.
func ByName(name string, keySize int) (Cipher, error) {
	a, ok := parse(name)
	unknown := &CipherError{Name: name, KeySize: keySize}
	if !ok || keySize < 1 || keySize > maxAreaKey {
		return Cipher{}, unknown
	}
	c := Cipher{name, a}
	// A key that no mode takes for two equal halves, like the one of libcryptsetup.
	trial := make([]byte, keySize)
	trial[0] = 1
	e, err := c.newEngine(trial, false)
	if err != nil {
		return Cipher{}, c.located(err, keySize)
	}
	e.forget()
	ivs, ok, err := c.newIVs(trial)
	if !ok {
		return Cipher{}, unknown
	}
	if err != nil {
		return Cipher{}, c.located(err, keySize)
	}
	ivs.forget()
	return c, nil
}

// maxAreaKey is more than any cipher takes, in bytes.
const maxAreaKey = 256

// located says which cipher an error is about.
func (c Cipher) located(err error, keySize int) error {
	e := &CipherError{Name: c.Name, KeySize: keySize, Err: err}
	if err == errKeySize {
		e.Err = nil
	}
	if isMissing(err) {
		e.Modules = c.modules()
	}
	return e
}

// Encrypt encrypts area, a multiple of 512 bytes, in place. Sectors count from 0
// at its start, wherever on the disk it is. Only a cipher of the kernel can fail.
func (c Cipher) Encrypt(key, area []byte) error { return c.run(key, area, false) }

// Decrypt is the inverse of [Cipher.Encrypt].
func (c Cipher) Decrypt(key, area []byte) error { return c.run(key, area, true) }

func (c Cipher) run(key, area []byte, decrypt bool) (err error) {
	secret.Do(func() { err = c.sectors(key, area, decrypt) })
	if err != nil {
		return c.located(err, len(key))
	}
	return nil
}

func (c Cipher) sectors(key, area []byte, decrypt bool) error {
	r, err := c.begin(key, decrypt)
	if err != nil {
		return err
	}
	defer r.forget()
	return r.crypt(area)
}

// run is a cipher on its way through an area.
type run struct {
	engine engine
	ivs    ivMaker
	sector uint64 // the next one
}

func (c Cipher) begin(key []byte, decrypt bool) (r run, err error) {
	if r.engine, err = c.newEngine(key, decrypt); err != nil {
		return run{}, err
	}
	if r.ivs, _, err = c.newIVs(key); err != nil {
		r.engine.forget()
	}
	return r, err
}

// crypt works in place on the next sectors.
func (r *run) crypt(area []byte) error {
	for ; len(area) > 0; area = area[sectorSize:] {
		if err := r.ivs.next(r.sector); err != nil {
			return err
		}
		if err := r.engine.crypt(area[:sectorSize:sectorSize], r.ivs.iv); err != nil {
			return err
		}
		r.sector++
	}
	return nil
}

func (r *run) forget() {
	r.ivs.forget()
	r.engine.forget()
}

// newEngine makes the algorithm ready for a key.
func (a algorithm) newEngine(key []byte, decrypt bool) (engine, error) {
	if a.cipher == "aes" {
		switch a.mode {
		case "xts":
			return newXTS(key, decrypt)
		case "cbc":
			return newCBC(key, decrypt)
		case "ecb":
			return newECB(key, decrypt)
		}
	}
	return newKernelEngine(a, key, decrypt)
}
