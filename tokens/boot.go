package tokens

// BootNeeds is what the devices of a type need in an initrd, besides the program.
type BootNeeds struct {
	Modules []string // kernel modules, by name or alias
	Folders []string // folders of kernel modules, below kernel/: "drivers/char/tpm"
	Helpers []string // helper programs beside cryptsetup-unit
	Opens   []Library
}

// A Library is opened by a helper that is not linked to it.
type Library struct {
	Name string // "libp11-kit.so.0"
	// Option is that of crypttab which names another one by its path; may be empty.
	Option string
}

// BootNeeder is implemented by types whose devices need something in an initrd. Hooks
// ask for the types that a header names.
type BootNeeder interface {
	BootNeeds() BootNeeds
}
