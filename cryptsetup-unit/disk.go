package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sys/unix"
)

// diskName is how prompts name a volume, as systemd does: "Samsung SSD (home) on
// /home", as far as these are known.
func diskName(root, node, volume string) string {
	description, mountPoint := udevDescription(root, node), mountPoint(root, volume)
	if description == volume {
		description = ""
	}
	switch {
	case mountPoint != "" && description != "":
		return fmt.Sprintf("%s (%s) on %s", description, volume, mountPoint)
	case mountPoint != "":
		return fmt.Sprintf("%s on %s", volume, mountPoint)
	case description != "":
		return fmt.Sprintf("%s (%s)", description, volume)
	}
	return volume
}

// udevDescription is what udev's database calls a block device, "" without udev.
func udevDescription(root, node string) string {
	var st unix.Stat_t
	if unix.Stat(node, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return ""
	}
	f, err := os.Open(filepath.Join(root, fmt.Sprintf("/run/udev/data/b%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))))
	if err != nil {
		return ""
	}
	defer f.Close()
	properties := map[string]string{}
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if property, ok := strings.CutPrefix(sc.Text(), "E:"); ok {
			name, value, _ := strings.Cut(property, "=")
			properties[name] = value
		}
	}
	if label := unescapeUdev(properties["ID_PART_ENTRY_NAME"]); label != "" && !strings.ContainsFunc(label, unicode.IsControl) {
		return label
	}
	for _, name := range []string{"DM_NAME", "ID_MODEL_FROM_DATABASE", "ID_MODEL"} {
		if properties[name] != "" {
			return properties[name]
		}
	}
	return ""
}

// unescapeUdev undoes the \xNN of udev's properties.
func unescapeUdev(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if strings.HasPrefix(s[i:], `\x`) && i+4 <= len(s) {
			if c, err := strconv.ParseUint(s[i+2:i+4], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountPoint is where /etc/fstab mounts the mapping, "" if nowhere.
func mountPoint(root, volume string) string {
	f, err := os.Open(filepath.Join(root, "/etc/fstab"))
	if err != nil {
		return ""
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		fields := strings.Fields(sc.Text())
		if len(fields) >= 2 && unescapeFstab(fields[0]) == "/dev/mapper/"+volume {
			return unescapeFstab(fields[1])
		}
	}
	return ""
}

// unescapeFstab decodes the escapes of fstab(5).
func unescapeFstab(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
