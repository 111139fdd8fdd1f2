package e2e

import (
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// TestMappingIsThatOfCryptsetup compares table and uuid.
func TestMappingIsThatOfCryptsetup(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	header := filepath.Join(t.TempDir(), "header")
	testenv.Run(t, "cryptsetup", "luksHeaderBackup", s.image, "--header-backup-file", header)
	pushed := "/run/test-header" // cryptsetup wants to lock it
	u.Shell(t, "cp "+u.Push(t, header)+" "+pushed)
	older := artefact(t, "luks1.img", writeLUKS1)
	for _, tt := range []struct {
		name, image   string
		options, open []string
	}{
		{"plain", s.image, nil, nil},
		{"flags", s.image, []string{"discard,same-cpu-crypt,no-read-workqueue,no-write-workqueue"}, []string{"--allow-discards", "--perf-same_cpu_crypt", "--perf-no_read_workqueue", "--perf-no_write_workqueue"}},
		{"read-only", s.image, []string{"read-only"}, []string{"--readonly"}},
		{"header", s.image, []string{"header=" + pushed}, []string{"--header", pushed}},
		{"LUKS1", older, nil, nil},
		{"LUKS1 with flags", older, []string{"read-only,discard"}, []string{"--readonly", "--allow-discards"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := u.AddDisk(t, Disk{Path: copyOf(t, tt.image)})
			show := "dmsetup table --showkeys vol; dmsetup info -c --noheadings -o uuid,attr vol; cat /sys/block/dm-0/ro /sys/block/dm-0/queue/read_ahead_kb"
			u.Run(t, append([]string{"cryptsetup", "open", "--key-file", "/run/test-key", disk, "vol"}, tt.open...)...)
			want := u.Shell(t, show+"; cryptsetup close vol").Stdout
			u.attach(t, append([]string{"vol", disk, "/run/test-key"}, tt.options...)...)
			if got := u.Shell(t, show).Stdout; got != want {
				t.Errorf("here       %s\ncryptsetup %s", got, want)
			}
			if key := ":64:logon:cryptsetup:" + s.uuid + "-d0 "; tt.image == s.image && !strings.Contains(want, key) {
				t.Errorf("table: %s", want)
			}
		})
	}
}

// writeLUKS1 makes a volume of the older format that the key file opens.
func writeLUKS1(image string) error {
	key := image + ".key"
	if err := execute(nil, nil, "sh", "-euc", `printf %s "$1" >"$2"; truncate -s 4M "$3"`, "sh", keyFile, key, image); err != nil {
		return err
	}
	return execute(nil, nil, "cryptsetup", "luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000", image, key)
}

// TestKeyStaysUnderLoad attaches fifty times while another program wants the
// processor. The volume key hangs on a thread until the table is loaded, and Go
// moves its goroutines between threads.
func TestKeyStaysUnderLoad(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	var out string
	for range 10 {
		out += u.Shell(t, `(while :; do :; done) & load=$!; trap "kill $load" EXIT
			export GOMAXPROCS=4
			for i in 1 2 3 4 5; do
				`+u.path+` attach vol `+disk+` /run/test-key key-slot=1,headless
				dmsetup table vol
				`+u.path+` detach vol
			done`).Stdout
	}
	if n := strings.Count(out, " crypt aes-xts-plain64 :64:logon:cryptsetup:"+s.uuid+"-d0 0 "); n != 50 || strings.Count(out, "\n") != 50 {
		t.Errorf("%d of 50 tables have the key:\n%s", n, out)
	}
	if left := u.Shell(t, "dmsetup ls; grep cryptsetup:"+s.uuid+" /proc/keys || true").Stdout; left != "No devices found\n" {
		t.Errorf("left behind: %s", left)
	}
}

// TestAlreadyAttached tells this volume from another one.
func TestAlreadyAttached(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	first, second := u.AddDisk(t, Disk{Path: copyOf(t, s.image)}), u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	u.attach(t, "vol", first, "/run/test-key")
	for args, want := range map[string]struct {
		status int
		text   string
	}{
		"vol " + first:   {0, "vol is already attached"},
		"vol " + second:  {5, "not this volume"},
		"other " + first: {5, `mapped as "vol"`},
	} {
		if r := u.Try(t, append([]string{u.path, "attach"}, append(strings.Fields(args), "/run/test-key", "headless")...)...); r.Status != want.status || !strings.Contains(r.Stderr, want.text) {
			t.Errorf("attach %s: exit status %d, want %d with %s\n%s", args, r.Status, want.status, want.text, r.Stderr)
		}
	}
	if r := u.Try(t, u.path, "attach", "third", "UUID="+s.uuid, "/run/test-key", "x-systemd.device-timeout=3"); r.Status != 10 || !strings.Contains(r.Stderr, first) || !strings.Contains(r.Stderr, second) {
		t.Errorf("two devices with one UUID: exit status %d\n%s", r.Status, r.Stderr)
	}
}

// TestVolumeOnAnotherDevice: of the devices that have one content the upper one is
// meant, and the lower one is in use.
func TestVolumeOnAnotherDevice(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	u.WriteFile(t, "/run/test-key", []byte(keyFile), 0o600)
	for _, tt := range []struct{ name, make, remove, upper, refused string }{
		{"logical volume", `dmsetup create lv --table "0 $(blockdev --getsz DISK) linear DISK 0"; dmsetup mknodes lv`,
			"dmsetup remove lv; rm -f /dev/mapper/lv", "lv", `mapped as "lv"`},
		// Without a superblock, as mdadm --build makes it.
		{"RAID", `modprobe -a md-mod raid1; echo md7 >/sys/module/md_mod/parameters/new_array; cd /sys/block/md7/md
			echo none >metadata_version; echo raid1 >level; echo 1 >raid_disks; cat /sys/block/$(basename DISK)/dev >new_dev
			echo 0 >dev-$(basename DISK)/slot; echo 24576 >dev-$(basename DISK)/size; echo 24576 >component_size; echo active >array_state`,
			"echo clear >/sys/block/md7/md/array_state", "md7", "in use (mounted, or part of another device)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
			u.Shell(t, strings.ReplaceAll(tt.make, "DISK", disk))
			t.Cleanup(func() { u.Shell(t, tt.remove) })
			u.Run(t, u.path, "attach", "vol", "UUID="+s.uuid, "/run/test-key")
			below := strings.TrimSpace(u.Shell(t, "dmsetup deps -o devname vol").Stdout)
			u.Run(t, u.path, "detach", "vol")
			if !strings.HasSuffix(below, "("+tt.upper+")") {
				t.Errorf("vol is on %s", below)
			}
			if r := u.Try(t, u.path, "attach", "vol", disk, "/run/test-key"); r.Status != 5 || !strings.Contains(r.Stderr, tt.refused) {
				t.Errorf("the disk below: exit status %d\n%s", r.Status, r.Stderr)
			}
		})
	}
}

// TestWithoutDMCrypt says what is missing before it asks for a key.
func TestWithoutDMCrypt(t *testing.T) {
	u, s := newUnit(t, Shared(t)), makeSample(t)
	disk := u.AddDisk(t, Disk{Path: copyOf(t, s.image)})
	const loader = "/proc/sys/kernel/modprobe"
	u.Shell(t, "modprobe dm-mod; rmmod dm-crypt 2>/dev/null || true; cp "+loader+" /run/loader; echo /nonexistent >"+loader)
	t.Cleanup(func() { u.Shell(t, "cat /run/loader >"+loader) })
	r := u.Try(t, u.path, "attach", "vol", disk, "-", "password-cache=no")
	if r.Status != 1 || !strings.Contains(r.Stderr, "dm_crypt") {
		t.Errorf("exit status %d\n%s", r.Status, r.Stderr)
	}
	// Neither folder is there if this is the first test in the guest.
	if left := u.Shell(t, "ls /run/systemd/ask-password /dev/mapper 2>/dev/null | grep -v '^/\\|^control$\\|^$' || true").Stdout; left != "" {
		t.Errorf("left behind: %s", left)
	}
}
