package helper

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"

	"luksmith/luks2/secret"
)

// TestPiecesCarryLongContent sends contents around the limits through a session and
// puts the answer together again.
func TestPiecesCarryLongContent(t *testing.T) {
	content := make([]byte, MaxSecrets*MaxSecret)
	rand.NewChaCha8([32]byte{}).Read(content)
	for _, size := range []int{0, 1, MaxSecret - 1, MaxSecret, MaxSecret + 1, len(content)} {
		for _, step := range []int{1000, MaxSecret, len(content)} {
			conn := Pipe("x", map[string]Method{"send": func(context.Context, *Request) (*Reply, error) {
				var p Pieces
				for rest := content[:size]; len(rest) > 0; rest = rest[min(step, len(rest)):] {
					if n, err := p.Write(rest[:min(step, len(rest))]); err != nil || n != min(step, len(rest)) {
						t.Errorf("%d bytes in steps of %d: %d, %v", size, step, n, err)
					}
				}
				return &Reply{Secrets: p.Secrets()}, nil
			}})
			answer, err := conn.Call(t.Context(), Call{Method: "send"}, nil)
			if err != nil {
				t.Fatal(err)
			}
			whole := secret.Join(answer...)
			if want := (size + MaxSecret - 1) / MaxSecret; len(answer) != want || !bytes.Equal(whole.Bytes(), content[:size]) {
				t.Errorf("%d bytes in steps of %d: %d pieces with %d bytes, want %d pieces", size, step, len(answer), whole.Len(), want)
			}
			secret.WipeAll(append(answer, whole))
			_ = conn.Close()
		}
	}
}

func TestPiecesRefuseMoreThanAMessage(t *testing.T) {
	var p Pieces
	defer p.Wipe()
	n, err := p.Write(make([]byte, MaxSecrets*MaxSecret+1))
	if !errors.Is(err, ErrProtocol) || n != MaxSecrets*MaxSecret {
		t.Errorf("%d bytes taken, %v", n, err)
	}
	first := p.list[0]
	p.Wipe()
	if first.Len() != 0 || len(p.Secrets()) != 0 {
		t.Error("Wipe leaves pieces")
	}
}
