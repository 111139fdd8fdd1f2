package main

import (
	"context"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// listening is a UI that keeps the last answer, which is the right one when the
// token opened.
type listening struct {
	tokens.UI
	last secret.Secret
	text string // of the question that it answered
}

// Ask passes the question on.
func (l *listening) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	answer, err := l.UI.Ask(ctx, p)
	l.last.Wipe()
	l.last, l.text = answer.Clone(), p.Text
	return answer, err
}

// typedOnce is a UI that answers one question for a PIN with one that was right a
// moment ago, so that it need not be typed twice. With a text, only that question
// is meant: the text names the device, and another device has another PIN.
type typedOnce struct {
	tokens.UI
	pin  secret.Secret // borrowed; empty for none
	text string
}

// Ask answers from memory, once.
func (t *typedOnce) Ask(ctx context.Context, p tokens.Prompt) (secret.Secret, error) {
	if t.pin.Len() > 0 && p.Attempt == 0 && !p.New && (t.text == "" || t.text == p.Text) {
		pin := t.pin.Clone()
		t.pin = secret.Secret{}
		return pin, nil
	}
	return t.UI.Ask(ctx, p)
}
