package dmcrypt

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestModuleThatSomebodyElseLoads(t *testing.T) {
	t.Parallel()
	list := filepath.Join(t.TempDir(), "modules")
	write := func(text string) {
		if err := os.WriteFile(list+".new", []byte(text), 0o600); err != nil {
			t.Error(err)
		}
		if err := os.Rename(list+".new", list); err != nil {
			t.Error(err)
		}
	}
	const others = "dm_mod 184320 1 dm_crypt, Live 0xffffffffc0a00000\n"
	for _, tt := range []struct {
		name, before, after string
		want                bool
	}{
		{"absent", others, others, false},
		{"there", others + "dm_crypt 61440 0 - Live 0x0\n", others, true},
		{"loading", "dm_crypt 61440 1 - Loading 0x0\n" + others, others + "dm_crypt 61440 0 - Live 0x0\n", true},
		{"does not load", "dm_crypt 61440 1 - Loading 0x0\n", others, false},
	} {
		write(tt.before)
		changed := make(chan struct{})
		time.AfterFunc(30*time.Millisecond, func() { write(tt.after); close(changed) })
		if got := awaitModule(list, "dm_crypt", time.Minute); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		<-changed
	}
	write("dm_crypt 61440 1 - Loading 0x0\n")
	if awaitModule(list, "dm_crypt", 20*time.Millisecond) {
		t.Error("a module that loads forever")
	}
}
