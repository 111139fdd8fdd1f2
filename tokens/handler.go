package tokens

import (
	"context"
	"encoding/json"

	"luksmith/luks2"
	"luksmith/luks2/secret"
)

// Handler is one token type. A value serves one run of a command: its fields are
// the options given. Handlers are not safe for concurrent use, with one exception:
// Describe.
type Handler interface {
	// Type is the "type" member of the token, such as "systemd-tpm2".
	Type() string
	// Name is the word for people, used in list and --wipe-slot=: "tpm2".
	Name() string
	// Describe reads a token without any device. An error means that the token
	// is malformed; it names the member and the reason.
	Describe(t luks2.Token) (Description, error)
	// Options is the table of all options of the type, bound to the handler's
	// fields.
	Options() []Option
}

// Enroller is a Handler that can make new tokens.
type Enroller interface {
	Handler
	// Plan checks the options and the request as far as that is possible without
	// a device and without asking anybody, and says in one line what Enroll
	// would make, for --dry-run: "TPM2, PCR 7 (sha256), PIN".
	Plan(req *EnrollRequest) (string, error)
	// Enroll makes a key and the token that describes it, and proves from the
	// JSON bytes of the result that the key comes back. Nothing is written to the
	// volume. When ctx ends it returns soon, with everything released.
	Enroll(ctx context.Context, req *EnrollRequest, ui UI) (*Enrollment, error)
}

// Finder is an Enroller that can tell, before anybody types anything, that there is no
// device to enrol.
type Finder interface {
	// Find returns nil unless it is certain that Enroll would find none; then its error.
	Find(ctx context.Context) error
}

// Doubter is an Enroller that knows from its options, before any device is asked,
// that it may not be able to prove what it makes.
type Doubter interface {
	// Doubt says why in one clause, "" without a doubt. certain means that nothing
	// this machine could be asked will prove it.
	Doubt(req *EnrollRequest) (why string, certain bool)
}

// Matcher is an Enroller that can tell from a token, without a device, whether it
// demands what the options ask for.
type Matcher interface {
	Enroller
	// Differs says in one clause what is other than the options want it, "" if nothing
	// is: "it demands PCR 7 (sha256), not PCR 7 (sha256), PIN". Values that PCRs have
	// at present do not count.
	Differs(req *EnrollRequest, t luks2.Token) (string, error)
}

// Several is a Matcher whose enrolment can make several keyslots, each with a token.
type Several interface {
	Matcher
	// Together reports whether tokens can be what is left of one enrolment.
	Together(list []luks2.Token) bool
	// DiffersTogether is Differs for all tokens of one enrolment, some of which may be
	// gone.
	DiffersTogether(req *EnrollRequest, list []luks2.Token) (string, error)
}

// Combiner is a Handler whose keys are made of the keys of other types. Beside it, the
// options that would choose one of those only say how it is used.
type Combiner interface {
	Handler
	// EnrollsWith reports whether a type is one of those that an enrolment asks.
	EnrollsWith(name string) bool
	// UnlocksWith reports whether its tokens may ask a type.
	UnlocksWith(name string) bool
}

// MultiEnroller is an Enroller that serves several volumes with fewer questions
// than one after the other.
type MultiEnroller interface {
	Enroller
	// EnrollAll returns one result for each request, in order, or an error and
	// nothing.
	EnrollAll(ctx context.Context, reqs []*EnrollRequest, ui UI) ([]*Enrollment, error)
}

// Unlocker is a Handler whose tokens give a passphrase. The recovery key has none:
// a person types it.
type Unlocker interface {
	Handler
	// Unlock tries the tokens of the request, cheapest first and each at most
	// once, until one opens the volume. It does not wait for devices: when none
	// of the devices that the tokens need is there, it returns [ErrNoDevice] and
	// the caller waits for events of [Watcher.Subsystems] and calls again.
	//
	// Failures of single tokens come back as [TokenError], several joined with
	// errors.Join; their sentinels say what to print and whether to go on.
	Unlock(ctx context.Context, req *UnlockRequest, ui UI) (*Unlocked, error)
}

// Watcher is an Unlocker whose device may appear later.
type Watcher interface {
	// Subsystems are the kernel subsystems whose "add" events are worth another
	// Unlock, such as "hidraw" or "tpmrm".
	Subsystems() []string
}

// DeviceWaiter is an Unlocker whose device may appear without any event of the
// kernel: a smartcard that is put into a reader which was there already.
type DeviceWaiter interface {
	// WaitDevice returns nil as soon as the devices that are present are not those
	// that the last Unlock of this handler saw, also if they changed between the
	// two calls, and any other error if it cannot tell: then only the events of
	// [Watcher] are left. Callers run it beside waiting for those, never beside
	// another method of the same handler, and end it by its context.
	WaitDevice(ctx context.Context) error
}

// KeyFileUser is an Unlocker of volumes whose sealed object, salt or ciphertext stands
// in the key file of crypttab and not in a token of the header.
type KeyFileUser interface {
	// KeyFile says how the key file is read with the options that were set, nil
	// where the tokens of the header are used and the key file holds a key.
	KeyFile() *KeyFileUse
}

// KeyFileUse is how a handler wants a key file to be read for
// [UnlockRequest.KeyData].
type KeyFileUse struct {
	// Server is what a server behind the key file is told that it is asked for, in
	// systemd's words: "cryptsetup-tpm2".
	Server string
	// Whole leaves keyfile-size= aside, as systemd 257 does for some.
	Whole bool
	// Alone says that the options leave no doubt about what the file holds, so that
	// it is not tried as a key besides.
	Alone bool
}

// DeviceLister is a Handler that can enumerate security devices
// (--tpm2-device=list).
type DeviceLister interface {
	// Devices returns the devices present now. Finding none is not an error.
	Devices(ctx context.Context) (*DeviceTable, error)
}

// DeviceTable is a list of devices for people and, with the column names as
// member names, for --json.
type DeviceTable struct {
	Columns []string // upper case, one word each: PATH, VENDOR
	Rows    [][]string
}

// Volume is what handlers may know of a volume.
type Volume struct {
	UUID   string
	Device string        // path as the user or crypttab gave it
	Label  string        // label of the LUKS2 header, often empty
	Name   string        // mapping name; empty in cryptenroll
	Tokens []luks2.Token // those of the header that speak for a keyslot, other types included
	// Words name the volume on a command line of cryptenroll; empty: Device does.
	Words string
}

// OnCommandLine names the volume in a command of cryptenroll that can be pasted;
// DEVICE if it is not known.
func (v *Volume) OnCommandLine() string {
	switch {
	case v.Words != "":
		return v.Words
	case v.Device != "":
		return ShellWord(v.Device)
	}
	return "DEVICE"
}

// NewestSystemd is the newest version whose tokens are known here.
const NewestSystemd = 262

// EnrollRequest is one enrolment.
type EnrollRequest struct {
	Volume Volume
	// Label is the name for the new keyslot; empty lets the handler choose,
	// usually the device's product name.
	Label string
	// Compat is the oldest systemd that must be able to read the token,
	// 248..262. The command resolves "auto" before it calls.
	Compat int
	// Factor says that the key is one of several that open a keyslot together: no
	// systemd reads it, no command renews it alone, and whoever has it opens nothing.
	Factor bool
	// Opens tries the passphrase that a token of the volume gave back on its
	// keyslots, as that of [UnlockRequest] does. A handler that finds its work
	// done by a token asks it first. nil accepts every passphrase.
	Opens func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error
}

// Check calls Opens, if there is one.
func (r *EnrollRequest) Check(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
	if r.Opens == nil {
		return nil
	}
	return r.Opens(ctx, t, passphrase)
}

// Enrollment is the result of an enrolment, to be written by the caller in one
// transaction.
type Enrollment struct {
	// Passphrase opens the new keyslot. The caller wipes it.
	Passphrase secret.Secret
	KDF        luks2.KDF
	// Token is the complete JSON object with "keyslots":[]; the transaction puts
	// the new slot's number there. Empty with a Passphrase: the keyslot gets no
	// token, and what unlocking takes is in Crypttab.
	Token json.RawMessage
	// Proven says that Passphrase came back in this call as it will at an unlock:
	// from the device and the bytes of Token, or because a person has it. Nothing
	// may be wiped on the strength of a keyslot that is not proven. A token that
	// is Unchanged is proven by [EnrollRequest.Opens] and not by this.
	Proven bool
	// Doubt says in one clause why it is not Proven: "it was sealed without the
	// TPM". Empty lets the command say it in general.
	Doubt string
	// Replaces are the ids of tokens which this one supersedes; they and their
	// keyslots go in the same transaction, after the new key is on the disk.
	Replaces []int
	// Unchanged is the token that already does what was asked for, nil when a new
	// one was made. With it nothing is to be written, and Passphrase and Token are
	// empty.
	Unchanged *luks2.Token
	// Made says in one line what was made, where that was not known at the time of
	// Plan; empty if Plan's line is right.
	Made     string
	Label    string
	Requires []string // as Description.Requires
	// Crypttab are the options for field 4 of this volume's line in
	// /etc/crypttab: "tpm2-device=auto".
	Crypttab []string
	// KeyFile is field 3 of that line, an absolute path; empty for "none".
	KeyFile string
	// More are further keyslots that belong to the same enrolment, each with its
	// passphrase and token; the caller writes all in one transaction. Their other
	// fields repeat those of the first.
	More []*Enrollment
	// Notes are things the user should know, one sentence each: weaknesses of
	// the choice, a downgrade for an old systemd.
	Notes []string
}

// UnlockRequest asks a handler for the passphrase of a volume.
type UnlockRequest struct {
	Volume Volume
	// Tokens are the candidates, all of the handler's type.
	Tokens []luks2.Token
	// KeyData is set for volumes without a token in the header: the FIDO2 salt,
	// the PKCS#11 ciphertext or the TPM2 sealed object, taken from the key file
	// that crypttab names. The other parameters come from the options.
	KeyData secret.Secret
	// Opens tries a passphrase on the keyslots of a token (ID -1 with KeyData)
	// and returns nil when the volume key came out, ErrWrongKey when it did not.
	// nil accepts every passphrase.
	Opens func(ctx context.Context, t luks2.Token, passphrase secret.Secret) error
}

// Check calls Opens, if there is one.
func (r *UnlockRequest) Check(ctx context.Context, t luks2.Token, passphrase secret.Secret) error {
	if r.Opens == nil {
		return nil
	}
	return r.Opens(ctx, t, passphrase)
}

// Unlocked is the passphrase that a token gave. The caller wipes it.
type Unlocked struct {
	Token      luks2.Token
	Passphrase secret.Secret
}

// Description is what list, test and plans say about a token.
type Description struct {
	Label string // the user's name for it, from the token's "luksmith" member
	// Requires are short phrases for what unlocking needs: "PIN", "touch",
	// "PCR 7+11 (sha256)". They hold nothing from the header unescaped that is
	// not a number or a known word.
	Requires []string
	// Detail is the JSON form for list --json: public parameters only, no
	// sealed object or salt.
	Detail any
	// Unusable says why this build cannot drive the token although it is well
	// formed ("made by a newer systemd: unknown member tpm2_future"); else "".
	Unusable string
	// Cost orders tokens: lower ones are tried first. 0 asks nobody anything,
	// 10 needs a touch, 20 a PIN.
	Cost int
}
