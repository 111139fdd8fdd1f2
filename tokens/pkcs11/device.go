package pkcs11

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// identity tells tokens apart over several sessions, in which slot numbers may
// differ. Two cards of one kind without serial numbers differ by their readers.
func identity(t *wire.Token) string {
	var b strings.Builder
	for _, part := range [][]byte{t.Manufacturer, t.Model, t.Serial, t.Label, t.SlotDescription} {
		b.WriteString(strconv.Quote(string(part)))
	}
	return b.String()
}

// deviceName is what people call the token, fit for a message.
func deviceName(t *wire.Token) string {
	for _, name := range [][]byte{t.Label, t.Model, t.Manufacturer} {
		if len(name) > 0 {
			return clean(string(name))
		}
	}
	return "PKCS#11 token"
}

// productName is what the vendor calls the token.
func productName(t *wire.Token) string {
	name := bytes.TrimSpace(bytes.Join([][]byte{t.Manufacturer, t.Model}, []byte(" ")))
	return strings.ToValidUTF8(string(name), "?")
}

// deviceURI selects a token by what does not change: its serial number rather than
// its label, which OpenSC takes from a certificate on some cards, unless other
// tokens have the same number.
func deviceURI(t *wire.Token, present []wire.Token) uri {
	twins := 0
	for i := range present {
		o := &present[i]
		if bytes.Equal(o.Serial, t.Serial) && bytes.Equal(o.Model, t.Model) && bytes.Equal(o.Manufacturer, t.Manufacturer) {
			twins++
		}
	}
	u := uri{}.with(attrManufacturer, t.Manufacturer).with(attrModel, t.Model).with(attrSerial, t.Serial)
	if twins > 1 || len(t.Serial) == 0 {
		u = u.with(attrToken, t.Label)
	}
	return u
}

// withObject adds what selects a key: its CKA_ID, which a private key shares with
// its public key and certificate, or else its label.
func (u uri) withObject(k *publicKey) uri {
	if len(k.id) > 0 {
		return u.with(attrID, k.id)
	}
	return u.with(attrObject, k.label)
}

// deviceKey is a public key on a token that is plugged in.
type deviceKey struct {
	device *wire.Token
	key    *publicKey
}

// suitableKeys reads the keys of a token that could be enrolled, each once, though
// most have a public key object and a certificate. reasons say why others are not
// suitable.
func (s *session) suitableKeys(ctx context.Context, device *wire.Token, u uri) (keys []*publicKey, reasons []string, err error) {
	found, err := s.publicKeys(ctx, device.Slot, u)
	if err != nil {
		return nil, nil, err
	}
	for i := range found {
		if !u.matchesObject(found[i].ID, found[i].Label) || !u.matchesClass(&found[i]) {
			continue
		}
		key, err := parsePublicKey(&found[i])
		if err != nil {
			reasons = append(reasons, err.Error())
			continue
		}
		if !slices.ContainsFunc(keys, key.same) {
			keys = append(keys, key)
		}
	}
	return keys, reasons, nil
}

// matchesClass lets type=cert and type=public choose between the certificate and
// the public key object of a pair.
func (u uri) matchesClass(k *wire.PublicKey) bool {
	switch u.attrs[attrType] {
	case "cert":
		return k.Certificate
	case "public":
		return !k.Certificate
	}
	return true
}

// usable are the tokens that have been set up, in the order of the list. A PIN is
// as good a sign as the flag for it, which some modules forget.
func usable(list []wire.Token) []*wire.Token {
	var devices []*wire.Token
	for i := range list {
		if list[i].Initialized || list[i].PINSet {
			devices = append(devices, &list[i])
		}
	}
	return devices
}

// Devices implements tokens.DeviceLister. There is a row for every key that could
// be enrolled, and one for a token that shows none or that cannot be read.
func (h *Handler) Devices(ctx context.Context) (*tokens.DeviceTable, error) {
	table := &tokens.DeviceTable{Columns: []string{"TOKEN", "MANUFACTURER", "SERIAL", "KEY", "URI"}}
	seen := map[string]bool{}
	for range maxSessions {
		lost, err := h.addRows(ctx, table, seen)
		if err != nil {
			return nil, err
		}
		if !lost {
			break
		}
	}
	slices.SortFunc(table.Rows, func(a, b []string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[4], b[4])) })
	return table, nil
}

// addRows lists the tokens that were not seen, with one process. lost means that one
// of them ended it, and that another process has to go on behind that.
func (h *Handler) addRows(ctx context.Context, table *tokens.DeviceTable, seen map[string]bool) (lost bool, err error) {
	s, err := h.open(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	list, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	for _, device := range usable(list.Tokens) {
		if s.broken {
			return true, nil
		}
		if id := identity(device); seen[id] {
			continue
		} else {
			seen[id] = true
		}
		keys, _, err := s.suitableKeys(ctx, device, uri{})
		u := deviceURI(device, list.Tokens)
		switch {
		case ctx.Err() != nil:
			return false, err
		case errors.Is(err, tokens.ErrNoDevice): // pulled out just now
		case err != nil:
			table.Rows = append(table.Rows, row(device, "cannot be read: "+err.Error(), u))
		case len(keys) == 0:
			table.Rows = append(table.Rows, row(device, "-", u))
		}
		for _, key := range keys {
			table.Rows = append(table.Rows, row(device, key.String(), u.withObject(key)))
		}
	}
	return false, nil
}

func row(t *wire.Token, key string, u uri) []string {
	cell := func(b []byte) string { return strings.ToValidUTF8(string(b), "?") }
	return []string{cell(t.Label), cell(t.Manufacturer), cell(t.Serial), key, u.String()}
}
