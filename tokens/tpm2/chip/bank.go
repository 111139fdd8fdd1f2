package chip

import (
	"crypto"
	"fmt"

	"github.com/google/go-tpm/tpm2"
)

// Bank is a PCR bank, identified by its hash. 0 is none.
type Bank tpm2.TPMAlgID

const (
	BankSHA1   = Bank(tpm2.TPMAlgSHA1)
	BankSHA256 = Bank(tpm2.TPMAlgSHA256)
	BankSHA384 = Bank(tpm2.TPMAlgSHA384)
	BankSHA512 = Bank(tpm2.TPMAlgSHA512)
)

// banks are the banks that systemd's tokens know.
var banks = [...]struct {
	Bank
	name string
	hash crypto.Hash
}{
	{BankSHA1, "sha1", crypto.SHA1},
	{BankSHA256, "sha256", crypto.SHA256},
	{BankSHA384, "sha384", crypto.SHA384},
	{BankSHA512, "sha512", crypto.SHA512},
}

// ParseBank reads the name of a hash.
func ParseBank(name string) (Bank, error) {
	for _, b := range banks {
		if b.name == name {
			return b.Bank, nil
		}
	}
	return 0, fmt.Errorf("%.20q is not a PCR bank; banks are sha1, sha256, sha384 and sha512", name)
}

// String is the name of the hash.
func (b Bank) String() string {
	for _, known := range banks {
		if known.Bank == b {
			return known.name
		}
	}
	return fmt.Sprintf("bank %#x", uint16(b))
}

// Hash is 0 for a bank that is not known.
func (b Bank) Hash() crypto.Hash {
	for _, known := range banks {
		if known.Bank == b {
			return known.hash
		}
	}
	return 0
}

// Size is the length of a PCR value, 0 when there is no bank.
func (b Bank) Size() int {
	if h := b.Hash(); h != 0 {
		return h.Size()
	}
	return 0
}
