package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"luksmith/internal/test/testenv"
)

// cmdTPM drives a software TPM of the script's own:
//
//	tpm start            runs a new chip and sets $TPM
//	tpm start tcp        as well, with $TCTI for tpm2-tools
//	tpm extend PCR TEXT  extends with the hash of a text
//	tpm reset            is a power cycle
//	tpm stop             takes it away
//	tpm sign FILE PCR TEXT…  signs the value that a PCR has once it was extended with
//	                     the texts; the public key goes to FILE.pem
func cmdTPM(ts *testscript.TestScript, neg bool, args []string) {
	d := devicesOf(ts)
	switch {
	case neg || len(args) == 0:
		ts.Fatalf("usage: tpm start [tcp] | extend PCR TEXT | reset | stop | sign FILE PCR TEXT…")
	case args[0] == "start":
		o := testenv.TPMOptions{TCP: len(args) > 1}
		d.chip = testenv.StartTPM(d.t, o)
		ts.Setenv("TPM", d.chip.Device())
		if o.TCP {
			ts.Setenv("TCTI", d.chip.Device())
		}
	case args[0] == "extend" && len(args) == 3:
		pcr, err := strconv.Atoi(args[1])
		ts.Check(err)
		sum := sha256.Sum256([]byte(args[2]))
		d.chip.Extend(pcr, "sha256", sum[:])
	case args[0] == "reset":
		d.chip.Reset()
	case args[0] == "stop":
		d.chip.Stop()
	case args[0] == "sign" && len(args) > 2:
		pcr, err := strconv.Atoi(args[2])
		ts.Check(err)
		ts.Check(d.sign(ts.MkAbs(args[1]), pcr, extended(args[3:])))
	default:
		ts.Fatalf("tpm %s: unknown", strings.Join(args, " "))
	}
}

// extended is the value of a PCR, zero at first, after the hashes of texts.
func extended(texts []string) (value [32]byte) {
	for _, text := range texts {
		sum := sha256.Sum256([]byte(text))
		value = sha256.Sum256(append(value[:], sum[:]...))
	}
	return value
}

// sign does what systemd-measure does: it writes a signature file for one value of a
// PCR in the bank sha256, and the public key beside it.
func (d *devices) sign(path string, pcr int, value [32]byte) (err error) {
	if d.signer == nil {
		if d.signer, err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			return err
		}
	}
	digest := sha256.Sum256(value[:])
	policy := make([]byte, 32)
	policy = binary.BigEndian.AppendUint32(policy, 0x17f) // TPM2_PolicyPCR
	policy = append(policy, 0, 0, 0, 1, 0, 0xb, 3)        // one selection, SHA-256, three bytes
	selected := uint32(1) << pcr
	policy = append(policy, byte(selected), byte(selected>>8), byte(selected>>16))
	approved := sha256.Sum256(append(policy, digest[:]...))
	signed := sha256.Sum256(approved[:])
	sig, err := rsa.SignPKCS1v15(rand.Reader, d.signer, crypto.SHA256, signed[:])
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(&d.signer.PublicKey)
	if err != nil {
		return err
	}
	fingerprint := sha256.Sum256(x509.MarshalPKCS1PublicKey(&d.signer.PublicKey))
	text, err := json.Marshal(map[string]any{"sha256": []any{map[string]any{
		"pcrs": []int{pcr}, "pkfp": hex.EncodeToString(fingerprint[:]), "pol": hex.EncodeToString(approved[:]), "sig": sig,
	}}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return err
	}
	return os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600)
}
