package tpm2

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"luksmith/luks2"
	"luksmith/tokens"
)

// Detail is the JSON form of a token in list: public parameters only.
type Detail struct {
	PCRs       []int    `json:"pcrs"`
	Bank       string   `json:"pcr_bank,omitempty"`
	PIN        string   `json:"pin"` // no, direct or argon2id
	PolicyHash []string `json:"policy_hash"`
	// SignedPCRs, PublicKey (the pkfp of signature files) and PolicyRef belong to
	// a signed policy.
	SignedPCRs []int   `json:"signed_pcrs,omitempty"`
	PublicKey  string  `json:"public_key,omitempty"`
	PolicyRef  *string `json:"policy_ref,omitempty"`
	PCRLock    bool    `json:"pcrlock,omitempty"`
	NVIndex    string  `json:"pcrlock_nv_index,omitempty"`
	// Parent is the handle of the storage key, ParentName its TPM name; without
	// them the parent is made anew every time.
	Parent     string `json:"parent,omitempty"`
	ParentName string `json:"parent_name,omitempty"`
	ParentAlg  string `json:"parent_alg"`
	Shards     int    `json:"shards"`
	Offline    bool   `json:"offline,omitempty"`
	Latch      bool   `json:"latch"`
	// Recorded says that the values at enrolment are known, so that a mismatch
	// can be explained.
	Recorded bool     `json:"recorded"`
	Created  string   `json:"created,omitempty"`
	Device   string   `json:"device,omitempty"`
	Unknown  []string `json:"unknown_members,omitempty"`
}

// Costs order tokens that are tried: what asks nobody first, then what the TPM
// does quickly.
const (
	costSigned = 1
	costLegacy = 4 // a primary key is made for every use: seconds with RSA
	costPIN    = 20
)

// Describe reads a token without a TPM.
func (h *Handler) Describe(t luks2.Token) (tokens.Description, error) {
	tok, err := parseToken(t.Raw)
	if err != nil {
		return tokens.Description{}, err
	}
	return tok.describe(), nil
}

func (t *token) describe() tokens.Description {
	return tokens.Description{Label: string(t.extra.Label), Requires: t.requires(), Detail: t.detail(), Unusable: t.unusable(), Cost: t.cost()}
}

func (t *token) cost() int {
	cost := 0
	if t.SignedPCRs != 0 || t.PCRLock {
		cost += costSigned
	}
	if t.Parent == nil {
		cost += costLegacy
	}
	if t.PIN {
		cost += costPIN
	}
	return cost
}

// requires holds nothing of the token but numbers and known words.
func (t *token) requires() []string {
	list := []string{}
	if t.PCRs != 0 {
		text := "PCR " + t.PCRs.String()
		if t.Bank != 0 {
			text += " (" + t.Bank.String() + ")"
		}
		list = append(list, text)
	}
	if t.SignedPCRs != 0 {
		list = append(list, "signed PCR "+t.SignedPCRs.String())
	}
	if t.PCRLock {
		list = append(list, "pcrlock policy")
	}
	if t.PIN {
		list = append(list, "PIN")
	}
	if len(list) == 0 {
		list = append(list, "TPM alone")
	}
	return list
}

func (t *token) detail() *Detail {
	d := &Detail{PCRs: t.PCRs.List(), PIN: "no", PolicyRef: t.Ref, PCRLock: t.PCRLock, ParentAlg: t.primaryAlg, Shards: len(t.blobs),
		Offline: t.offline(), Latch: t.Latched(), Created: t.extra.Created, Device: t.extra.Device, Recorded: t.recorded() != nil, Unknown: t.unknown}
	if t.Bank != 0 {
		d.Bank = t.Bank.String()
	}
	if t.PIN {
		d.PIN = "direct"
		if t.argon != nil {
			d.PIN = "argon2id"
		}
	}
	for _, p := range t.policy {
		d.PolicyHash = append(d.PolicyHash, hex.EncodeToString(p[:]))
	}
	if t.SignedPCRs != 0 {
		d.SignedPCRs = t.SignedPCRs.List()
		if t.Key.RSA != nil {
			d.PublicKey = hex.EncodeToString(t.Key.Fingerprint[:])
		}
	}
	if t.NVIndex != nil {
		d.NVIndex = fmt.Sprintf("%#x", uint32(t.NVIndex.Handle))
	}
	if t.Parent != nil {
		d.Parent, d.ParentName = fmt.Sprintf("%#x", uint32(t.Parent.Handle)), hex.EncodeToString(t.Parent.Name)
	}
	return d
}

// label is the name for prompts and messages, with a space in front, or empty.
func (t *token) label() string {
	if t.extra.Label == "" {
		return ""
	}
	return " " + strings.TrimSpace(strconv.QuoteToGraphic(string(t.extra.Label)))
}
