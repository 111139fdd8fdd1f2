package crypttab_test

import (
	"fmt"
	"io/fs"
	"strings"

	"luksmith/crypttab"
	"luksmith/tokens/all"
)

func ExampleParse() {
	f, err := crypttab.Parse(strings.NewReader(`# name device key options
root UUID=01234567-89ab-cdef-0123-456789abcdef none tpm2-device=auto,discard
data LABEL=my\x20data /key:LABEL=stick
`), "/etc/crypttab")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, e := range f.Entries {
		o, warnings, err := all.New().Grammar().ParseOptions(e.Options)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s, key %q, discard %t, tokens %v, %d warnings\n", e.Name, e.Source, e.Key, o.Discard, o.Types, len(warnings))
	}
	// Output:
	// root: UUID=01234567-89ab-cdef-0123-456789abcdef, key "", discard true, tokens [tpm2], 0 warnings
	// data: LABEL=my data, key "/key:LABEL=stick", discard false, tokens [], 0 warnings
}

func ExampleLint() {
	f, err := crypttab.Parse(strings.NewReader("root ID=ata-disk - tpm2=auto\nroot /dev/sdb"), "crypttab")
	if err != nil {
		fmt.Println(err)
		return
	}
	o := &crypttab.LintOptions{Grammar: all.New().Grammar(), Stat: func(string) (fs.FileInfo, error) { return nil, fs.ErrNotExist }}
	for _, finding := range crypttab.Lint(f, o) {
		fmt.Println(finding.Text())
	}
	// Output:
	// crypttab:1: error: device: "ID=ata-disk" is neither absolute nor a tag such as UUID=; write /dev/disk/by-id/ata-disk
	// crypttab:1: error: options: tpm2=auto: unknown option, did you mean "tpm2-device=auto"?
	// crypttab:2: error: name: "root" is already defined in line 1; this line is ignored
}

func ExampleChange() {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	c := &crypttab.Change{Name: "luks-" + uuid, Device: "UUID=" + uuid, Options: []string{"tpm2-device=auto"}, Grammar: all.New().Grammar(),
		Match: func(e *crypttab.Entry) bool { return e.IsAbout(uuid) }}
	text, _, err := c.Edit([]byte("# mine\nroot  UUID="+uuid+"  none  luks\n"), "crypttab")
	fmt.Print(string(text), err)
	// Output:
	// # mine
	// root  UUID=01234567-89ab-cdef-0123-456789abcdef  none  luks,tpm2-device=auto
	// <nil>
}
