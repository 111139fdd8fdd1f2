package tokens

// Witness is an Unlocker that can tell in which state it found the machine, for the
// record of a boot.
type Witness interface {
	Unlocker
	// Witness has each later Unlock call saw before it returns, with what it found
	// and what failed, also if another token opened. Unlock may ask the device once
	// more for that, but neither fails nor waits because of it.
	Witness(saw func(*Sight))
}

// Sight is what a Witness found during one Unlock. Nothing in it is secret.
type Sight struct {
	Bank string         // of the PCRs, "sha256"
	PCRs map[int][]byte // by number, empty if they could not be read
	// Policies are the policy digests of the tokens that were looked at, by number.
	Policies map[int][]byte
	Failed   []*TokenError
}
