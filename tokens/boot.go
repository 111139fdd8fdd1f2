package tokens

// BootNeeds is what the devices of a type need in an initrd, besides the program.
type BootNeeds struct {
	Modules []string // kernel modules, by name or alias
	Folders []string // folders of kernel modules, below kernel/: "drivers/char/tpm"
	Helpers []string // helper programs beside cryptsetup-unit
	// Opens are libraries that a helper opens without being linked to them, unless
	// crypttab names another one.
	Opens []string
}

// BootNeeder is implemented by types whose devices need something in an initrd. Hooks
// ask for the types that a header names.
type BootNeeder interface {
	BootNeeds() BootNeeds
}
