package varlinkapi

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// ownCalls are the methods of luksmith.CryptEnroll.
type ownCalls struct{ Backend }

func (o *ownCalls) dispatch(ctx context.Context, c *call, method string) error {
	switch method {
	case "Enroll":
		return o.enroll(ctx, c)
	case "Test":
		c.params.only("node", "options", "unlockPassword", "unlockKeyFileDescriptorIndex", "pin")
		return o.run(ctx, c, "test")
	case "List", "Doctor":
		c.params.only("node")
		return o.run(ctx, c, strings.ToLower(method))
	}
	return noMethod(method)
}

func (o *ownCalls) enroll(ctx context.Context, c *call) error {
	p := c.params
	p.only("node", "options", "unlockPassword", "unlockKeyFileDescriptorIndex", "password", "pin", "newPin")
	p.must("options")
	r := c.ownRequest()
	if p.err != nil {
		return p.err
	}
	done, err := o.Enroll(ctx, r)
	if err != nil {
		return err
	}
	defer done.Key.Wipe()
	reply := enrollReply{Slot: done.Slot, Wiped: done.Wiped, Result: done.Result}
	if done.Key.Len() > 0 {
		c.conn.reveal, reply.Key = done.Key, mark
	}
	return c.Reply(ctx, reply)
}

// ownRequest has the members of this interface besides.
func (c *call) ownRequest() *Request {
	r := c.request()
	r.Words = append(r.Words, c.optionWords()...)
	r.Secrets.PIN, r.Secrets.NewPIN = c.params.secret("pin"), c.params.secret("newPin")
	return r
}

// optionWords are the options as they stand on a command line. Those that only change
// what is printed have no meaning here.
func (c *call) optionWords() (words []string) {
	options := map[string]string{}
	c.params.read("options", &options)
	for _, name := range slices.Sorted(maps.Keys(options)) {
		if name == "" || strings.Contains(name, "=") || slices.Contains([]string{"json", "help", "h", "version", "list-devices", "no-pager", "dry-run"}, name) {
			c.params.fail("options")
			return nil
		}
		words = append(words, "--"+name+"="+options[name])
	}
	return words
}

func (o *ownCalls) run(ctx context.Context, c *call, verb string) error {
	r := c.ownRequest()
	if c.params.err != nil {
		return c.params.err
	}
	result, err := o.Run(ctx, verb, r)
	if err != nil {
		return err
	}
	return c.Reply(ctx, struct {
		Result json.RawMessage `json:"result"`
	}{result})
}
