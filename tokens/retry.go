package tokens

import (
	"context"
	"errors"

	"luksmith/luks2/secret"
)

// maxPINs is how often a PIN may be asked for in one UnlockWithRetries. Handlers
// warn about the device's own limit.
const maxPINs = 3

// UnlockWithRetries is u.Unlock, and once more after a wrong PIN while a person
// gives another one. Every call is for the same handler value, which knows what was
// wrong before. Types that ask again by themselves have used up the questions when
// their Unlock returns.
func UnlockWithRetries(ctx context.Context, u Unlocker, req *UnlockRequest, ui UI) (*Unlocked, error) {
	counted := &countingUI{UI: ui}
	unlocked, err := u.Unlock(ctx, req, counted)
	for answers := 0; mayRetry(err) && answers < counted.answers && counted.answers < maxPINs; {
		answers = counted.answers
		again, retryErr := u.Unlock(ctx, req, counted)
		if errors.Is(retryErr, ErrNoPrompt) {
			break // the PIN came from a credential: that it was wrong is the news
		}
		unlocked, err = again, retryErr
	}
	return unlocked, err
}

// mayRetry reports whether a person who is asked again may do better.
func mayRetry(err error) bool {
	return errors.Is(err, ErrWrongPIN) && !errors.Is(err, ErrLocked)
}

// countingUI counts the answers that it passes on.
type countingUI struct {
	UI
	answers int
}

// Ask passes the question on.
func (c *countingUI) Ask(ctx context.Context, p Prompt) (secret.Secret, error) {
	answer, err := c.UI.Ask(ctx, p)
	if err == nil {
		c.answers++
	}
	return answer, err
}
