package crypttab

import (
	"slices"
	"strings"
	"testing"
)

// TestUUIDsInCapitalsAreFound: udev's links have small letters, and on the kernel command
// line capitals made another volume. Serial numbers of FAT stay as they are.
func TestUUIDsInCapitalsAreFound(t *testing.T) {
	t.Parallel()
	capitals := strings.ToUpper(someUUID)
	for text, want := range map[string]string{"UUID=" + capitals: "/dev/disk/by-uuid/" + someUUID, "PARTUUID=" + capitals: "/dev/disk/by-partuuid/" + someUUID,
		"PARTUUID=ABCD1234-01": "/dev/disk/by-partuuid/abcd1234-01", "UUID=ABCD-1234": "/dev/disk/by-uuid/ABCD-1234", "LABEL=" + capitals: "/dev/disk/by-label/" + capitals} {
		if got := ParseDeviceRef(text).UdevLinks(); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q", text, got)
		}
	}
	k := ParseKernelLine("luks.uuid="+capitals+" luks.name="+someUUID+"=root", false)
	if len(k.volumes) != 1 || k.volumes[0].name != "root" {
		t.Errorf("%+v", k.volumes)
	}
}
