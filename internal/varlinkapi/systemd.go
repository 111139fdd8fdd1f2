package varlinkapi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// systemdCalls are the methods of io.systemd.CryptEnroll.
type systemdCalls struct{ Backend }

func (s *systemdCalls) dispatch(ctx context.Context, c *call, method string) error {
	switch method {
	case "ListSlots":
		return s.listSlots(ctx, c)
	case "Enroll":
		return s.enroll(ctx, c)
	}
	return noMethod(method)
}

func (s *systemdCalls) listSlots(ctx context.Context, c *call) error {
	if !c.WantsMore() {
		return errNeedsMore
	}
	c.params.only("node")
	r := c.request()
	if c.params.err != nil {
		return c.params.err
	}
	list, err := s.Slots(ctx, r.Node)
	if err != nil {
		return err
	}
	c.Continues = true
	for _, slot := range list {
		if err := c.Reply(ctx, slot); err != nil {
			return err
		}
	}
	c.Continues = false
	return c.Reply(ctx, struct{}{})
}

// mechanisms are the types of keyslots.
var mechanisms = []string{"password", "recovery", "pkcs11", "fido2", "tpm2"}

// unlockMembers say how the volume is opened, one of them in each call.
var unlockMembers = []string{"unlockPassword", "unlockKeyFile", "unlockKeyFileDescriptorIndex", "unlockFido2Device", "unlockTpm2Device"}

func (s *systemdCalls) enroll(ctx context.Context, c *call) error {
	p := c.params
	p.only(slices.Concat(unlockMembers, []string{"node", "mechanism", "password", "fido2Device", "fido2Pin", "fido2WithClientPin",
		"fido2WithUserPresence", "fido2WithUserVerification", "wipeSlots", "wipeTypes"})...)
	p.must("mechanism")
	r := c.request()
	r.AsSystemd, r.Secrets.PIN = true, p.secret("fido2Pin")
	r.Words = slices.Concat(r.Words, c.unlockWords(), c.enrollWords(), c.wipeWords())
	if p.err != nil {
		return p.err
	}
	done, err := s.Enroll(ctx, r)
	if err != nil {
		return err
	}
	defer done.Key.Wipe()
	reply := enrollReply{Slot: done.Slot, Wiped: done.Wiped}
	if done.Key.Len() > 0 {
		c.conn.reveal, reply.Key = done.Key, mark
	}
	return c.Reply(ctx, reply)
}

type enrollReply struct {
	Slot   int    `json:"keyslot"`
	Wiped  []int  `json:"wipedSlots,omitempty"`
	Key    string `json:"recoveryKey,omitempty"`
	Result any    `json:"result,omitempty"` // of luksmith.CryptEnroll
}

// unlockWords are the options of how to open the volume. As in systemd, a call without
// is about unlockPassword, and one with several about the second one.
func (c *call) unlockWords() (words []string) {
	p := c.params
	given := slices.DeleteFunc(slices.Clone(unlockMembers), func(name string) bool { return !p.has(name) })
	switch len(given) {
	case 0:
		p.fail("unlockPassword")
	case 1:
	default:
		p.fail(given[1])
	}
	if p.has("unlockKeyFile") {
		words = append(words, "--unlock-key-file="+p.text("unlockKeyFile"))
	}
	for member, option := range map[string]string{"unlockFido2Device": "--unlock-fido2-device=", "unlockTpm2Device": "--unlock-tpm2-device="} {
		if p.has(member) {
			words = append(words, option+c.device(member))
		}
	}
	return words
}

// device is a path, or auto for none.
func (c *call) device(member string) string {
	path := c.params.text(member)
	if path == "" {
		return "auto"
	}
	return path
}

func (c *call) enrollWords() []string {
	p := c.params
	switch p.text("mechanism") {
	case "password":
		return []string{"--password"}
	case "recovery":
		return []string{"--recovery-key"}
	case "fido2":
	default: // not enrolled here
		p.fail("mechanism")
		return nil
	}
	words := []string{"--fido2-device=" + c.device("fido2Device")}
	for _, b := range []struct{ member, option string }{{"fido2WithClientPin", "client-pin"},
		{"fido2WithUserPresence", "user-presence"}, {"fido2WithUserVerification", "user-verification"}} {
		if p.has(b.member) {
			var on bool
			p.read(b.member, &on)
			words = append(words, fmt.Sprintf("--fido2-with-%s=%t", b.option, on))
		}
	}
	return words
}

func (c *call) wipeWords() []string {
	p := c.params
	var slots []uint32
	var words []string
	p.read("wipeSlots", &slots)
	p.read("wipeTypes", &words)
	for _, word := range words {
		if !slices.Contains(mechanisms, word) {
			p.fail("wipeTypes")
		}
	}
	for _, slot := range slots {
		words = append(words, strconv.FormatUint(uint64(slot), 10))
	}
	if len(words) == 0 {
		return nil
	}
	return []string{"--wipe-slot=" + strings.Join(words, ",")}
}
