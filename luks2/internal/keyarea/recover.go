package keyarea

import (
	"luksmith/luks2/internal/hashes"
	"luksmith/luks2/secret"
)

// Recover computes a key from what is in its area: decrypted with areaKey and merged,
// 512 stripes at a time, in an eighth of the memory. read fills a part of the area from
// an offset in it; its errors are returned as they are. All are borrowed; the length of
// key says how large it is.
func (c Cipher) Recover(f hashes.Func, areaKey, key secret.Secret, read func(part []byte, at int) error) (err error) {
	size, step := SplitSize(key.Len()), key.Len()*sectorSize // of whole stripes, and whole sectors
	buf := secret.New(min(step, size))
	defer buf.Wipe()
	secret.Do(func() {
		r, e := c.begin(areaKey.Bytes(), true)
		if e != nil {
			err = c.located(e, areaKey.Len())
			return
		}
		defer r.forget()
		m := newMerger(f, key.Bytes())
		defer m.forget()
		for at := 0; at < size; at += step {
			part := buf.Bytes()[:min(step, size-at)]
			if err = read(part, at); err != nil {
				return
			}
			if e := r.crypt(part); e != nil {
				err = c.located(e, areaKey.Len())
				return
			}
			m.take(part)
		}
	})
	return err
}
