package tokens

import (
	"context"

	"luksmith/luks2"
)

// Examiner is an Unlocker that can tell whether its tokens would open a volume now,
// without asking anybody anything and without using up a try.
type Examiner interface {
	Unlocker
	// Examine returns one result for each token of the request, in order. An error
	// means that nothing could be told of any of them.
	Examine(ctx context.Context, req *UnlockRequest) ([]Examination, error)
}

// Verdict says whether a token would open its volume now, on this machine.
type Verdict int

const (
	// Unclear: it could not be told; the token may be good.
	Unclear Verdict = iota
	// OpensAlone: it opened the volume, and nobody was needed.
	OpensAlone
	// OpensWithPerson: all is there but what a person gives: a PIN, a touch.
	OpensWithPerson
	// OpensNextBoot: it gives its key once in each boot, and did.
	OpensNextBoot
	// Absent: its device is not plugged in.
	Absent
	// Closed: its device is there and refuses in the present state of the machine,
	// which may be right again.
	Closed
	// Dead: it can never open the volume again.
	Dead
)

// Examination is what became of one token.
type Examination struct {
	Token   luks2.Token
	Verdict Verdict
	Err     error // why it does not open; nil if it does
	// Spare: another token of the volume was made with the same options, and opens
	// or is newer.
	Spare bool
	// Renew is the command of cryptenroll that makes it open again, without the
	// device: "reseal --slot=1". Empty if there is none.
	Renew string
}

// Adviser is a Handler that can tell from a token alone what is weak about it.
type Adviser interface {
	Handler
	// Advise returns nothing for a token that leaves nothing to wish for, or that
	// cannot be read.
	Advise(t luks2.Token) []Advice
}

// Advice is a weakness of a token.
type Advice struct {
	// Text says in one sentence what it means.
	Text string
	// Options are those of cryptenroll that enrol a better one; nil if nothing does.
	Options []string
}
