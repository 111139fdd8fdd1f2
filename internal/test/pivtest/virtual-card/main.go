// Command virtual-card is a PIV card made of software for vsmartcard's virtual reader
// on the same machine, for tests in a guest and for trying things by hand. It has a
// new P-256 key for key management and obeys lines on its input:
//
//	insert, remove   put the card into the reader, pull it out
//	tries            print the retry counter of the PIN
//
// It answers each with a line, and ends when its input does.
package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"

	"luksmith/internal/test/pivtest"
)

func main() {
	pin := flag.String("pin", "123456", "PIN, at most 8 characters")
	flag.Parse()
	if err := run(*pin, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "virtual-card:", err)
		os.Exit(1)
	}
}

func run(pin string, in io.Reader, out io.Writer) error {
	card, err := newCard(pin)
	if err != nil {
		return err
	}
	s := slot{card: card}
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := s.obey(lines.Text())
		if err != nil {
			answer = "error: " + err.Error()
		}
		fmt.Fprintln(out, answer)
	}
	return nil
}

// newCard makes a card with a key and its certificate.
func newCard(pin string) (*pivtest.Card, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "disk"}, NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	card := pivtest.NewCard(pin, 1)
	card.AddKey(pivtest.KeyManagement, key, certificate)
	return card, nil
}

// slot is the place of the card.
type slot struct {
	card   *pivtest.Card
	remove func() error // nil while it is outside
}

func (s *slot) obey(line string) (answer string, err error) {
	switch {
	case line == "tries":
		return fmt.Sprint(s.card.Tries()), nil
	case line == "insert" && s.remove == nil:
		s.remove, err = pivtest.Dial(s.card)
		return "inserted", err
	case line == "remove" && s.remove != nil:
		err, s.remove = s.remove(), nil
		return "removed", err
	}
	return "", errors.New("cannot " + line)
}
