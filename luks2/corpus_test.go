package luks2

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"luksmith/internal/test/testenv"
	"luksmith/luks2/secret"
)

// corpusCase is one line of testdata/headers/index.tsv: what cryptsetup 2.6.1 and
// 2.7.5 say of a header. See the README beside it.
type corpusCase struct {
	set, file string
	verdict   string // of 2.7.5, which knows more rules
	pw0, pw1  string
	mayReject bool // no real writer makes such a header
	comment   string
}

func corpusIndex(t *testing.T) []corpusCase {
	t.Helper()
	b, err := os.ReadFile("testdata/headers/index.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var list []corpusCase
	for line := range strings.Lines(string(b)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if f[0] != "set" {
			list = append(list, corpusCase{f[0], f[1], f[3], f[6], f[7], f[11] == "may", f[12]})
		}
	}
	return list
}

// TestCorpus judges cryptsetup's own malformed and old headers as cryptsetup does,
// in bounded time and memory, and leaves the files alone.
func TestCorpus(t *testing.T) {
	dir := testenv.Archive(t, "testdata/headers/corpus.tar.zst")
	for _, c := range corpusIndex(t) {
		t.Run(c.set+"/"+c.file, func(t *testing.T) {
			path := filepath.Join(dir, c.set, c.file)
			before := fileSum(t, path)
			var start, end runtime.MemStats
			runtime.ReadMemStats(&start)
			judge(t, c, path)
			runtime.ReadMemStats(&end)
			if n := end.TotalAlloc - start.TotalAlloc; n > 64<<20 {
				t.Errorf("judging took %d bytes of memory", n)
			}
			for pw, want := range map[string]string{"0": c.pw0, "1": c.pw1} {
				name := "pw" + pw
				if c.set == "compat" {
					name = "compat" + pw
				}
				tryPassphrase(t, path, filepath.Join(dir, name), want)
			}
			if fileSum(t, path) != before {
				t.Error("reading changed the file")
			}
		})
	}
}

func judge(t *testing.T, c corpusCase, path string) {
	d, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := d.Header(t.Context())
	if c.mayReject && err != nil {
		return
	}
	switch c.verdict {
	case "accept":
		if err != nil {
			t.Errorf("rejected: %v", err)
		} else if h.Damaged() {
			t.Errorf("copies judged damaged: %+v", h.Copies)
		}
	case "repair1", "repair2":
		if err != nil {
			t.Errorf("rejected: %v", err)
		} else if bad := int(c.verdict[6] - '1'); h.Copies[bad].Chosen || !h.Damaged() {
			t.Errorf("copy %d is not judged damaged: %+v", bad, h.Copies)
		}
	case "luks1-accept":
		if !errors.Is(err, ErrLUKS1) || !errors.Is(err, ErrNotLUKS2) {
			t.Errorf("got %v, want ErrLUKS1", err)
		}
	case "reject":
		if err == nil {
			t.Errorf("accepted (%s)", c.comment)
		}
	default:
		t.Fatalf("index has verdict %q", c.verdict)
	}
}

func tryPassphrase(t *testing.T, path, passwordFile, want string) {
	if want != "open" && want != "wrong" {
		return
	}
	d, err := Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Header(t.Context()); errors.Is(err, ErrLUKS1) {
		return
	}
	f, err := os.Open(passwordFile)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	passphrase, err := secret.Read(f, 1<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), AnySlot, passphrase)
	switch {
	case want == "open" && err != nil:
		t.Errorf("%s does not open: %v", filepath.Base(passwordFile), err)
	case want == "wrong" && err == nil:
		t.Errorf("%s opens slot %d, cryptsetup says that it is wrong", filepath.Base(passwordFile), key.Slot)
	}
	if err == nil {
		key.Wipe()
	}
}

// fileSum hashes a sparse file without reading its holes.
func fileSum(t *testing.T, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	for from := int64(0); ; {
		data, err := f.Seek(from, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) { // nothing but a hole up to the end
			return [sha256.Size]byte(h.Sum(nil))
		}
		if err != nil {
			t.Fatal(err)
		}
		if from, err = f.Seek(data, unix.SEEK_HOLE); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(h, data, from)
		if _, err := io.Copy(h, io.NewSectionReader(f, data, from-data)); err != nil {
			t.Fatal(err)
		}
	}
}

// sidecar is the JSON beside a volume that was made by systemd or cryptsetup.
type sidecar struct {
	UUID      string `json:"uuid"`
	Slot0     string `json:"passphrase_slot0"`
	Derived   string `json:"derived_passphrase"` // of slot 1
	VolumeKey string `json:"volume_key_hex"`
}

// TestVolumesOfSystemd opens every keyslot with its recorded passphrase and
// compares the volume key.
func TestVolumesOfSystemd(t *testing.T) {
	for _, name := range []string{"passphrase", "recovery-262"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, err := os.ReadFile("testdata/systemd/" + name + ".json")
			if err != nil {
				t.Fatal(err)
			}
			var side sidecar
			if err := json.Unmarshal(b, &side); err != nil {
				t.Fatal(err)
			}
			d, err := Open(testenv.Image(t, "testdata/systemd/"+name+".img.zst"), nil)
			if err != nil {
				t.Fatal(err)
			}
			h, err := d.Header(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if h.UUID != side.UUID {
				t.Errorf("UUID %s, want %s", h.UUID, side.UUID)
			}
			for slot, text := range []string{side.Slot0, side.Derived} {
				for _, ask := range []int{slot, AnySlot} {
					opensWith(t, d, ask, slot, text, side.VolumeKey)
				}
			}
		})
	}
}

// opensWith fails the test unless the passphrase, asked for on slot or AnySlot,
// opens the wanted slot and gives the volume key.
func opensWith(t *testing.T, d *Device, ask, want int, text, keyHex string) {
	t.Helper()
	passphrase := secret.Copy([]byte(text))
	defer passphrase.Wipe()
	key, err := d.OpenKeyslot(t.Context(), ask, passphrase)
	if err != nil {
		t.Errorf("slot %d: %v", want, err)
		return
	}
	defer key.Wipe()
	if key.Slot != want || hex.EncodeToString(key.Key.Bytes()) != keyHex {
		t.Errorf("slot %d: slot %d opened, or the volume key is another", want, key.Slot)
	}
}
