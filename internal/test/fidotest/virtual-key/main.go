// Command virtual-key plugs a security key made of software into the kernel
// (uhid) or into a pseudo-terminal, for tests in a guest and for trying things by
// hand. It prints the path of a terminal, "ready" for uhid, and then obeys lines
// on its input:
//
//	touch now|never|DURATION   what the person does when the key blinks
//	finger yes|no              whether fingerprints match
//	fault NAME                 a defect from now on, "none" for none
//	unplug, plug               remove the key, and plug it in again (uhid)
//	stats                      print the counts, as JSON
//
// Each line is answered with "ok" or "error: …". It ends when its input does.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"luksmith/internal/test/fidotest"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "virtual-key:", err)
		os.Exit(1)
	}
}

var faults = map[string]fidotest.Fault{
	"none": fidotest.NoFault, "silent": fidotest.Silent, "silent-commands": fidotest.SilentCommands,
	"not-cbor": fidotest.NotCBOR, "wrong-cbor": fidotest.WrongCBOR, "oversized": fidotest.Oversized, "truncated": fidotest.Truncated,
	"unplug-on-touch": fidotest.UnplugOnTouch, "noisy-keepalive": fidotest.NoisyKeepalive,
}

// station is one key and the way it is plugged in.
type station struct {
	key  *fidotest.Key
	uhid bool
	out  io.Writer
	gone chan error // the uhid device was removed
}

func run(args []string, in io.Reader, out io.Writer) error {
	fs := flag.NewFlagSet("virtual-key", flag.ContinueOnError)
	firmware := fs.String("firmware", "2.1", "family of firmware: 2.1 or 2.0")
	uhid := fs.Bool("uhid", false, "make a hidraw device instead of a terminal")
	touch := fs.String("touch", "now", "now, never or a duration")
	c := fidotest.Config{}
	fs.StringVar(&c.PIN, "pin", "", "PIN that is set")
	fs.StringVar(&c.Seed, "seed", "", "keys with the same seed are the same key")
	fs.StringVar(&c.Product, "product", "luksmith test key", "product name")
	fs.BoolVar(&c.BuiltInUV, "uv", false, "has a fingerprint reader")
	fs.BoolVar(&c.AlwaysUV, "always-uv", false, "always verifies the user")
	fs.BoolVar(&c.NoHMACSecret, "no-hmac-secret", false, "lacks the extension")
	fs.DurationVar(&c.TouchTimeout, "touch-timeout", 30*time.Second, "gives up waiting for a touch")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch *firmware {
	case "2.1":
	case "2.0":
		c.Firmware = fidotest.CTAP20
	default:
		return fmt.Errorf("firmware %q", *firmware)
	}
	s := &station{key: fidotest.New(c), uhid: *uhid, out: out}
	if err := s.obey("touch " + *touch); err != nil {
		return err
	}
	if err := s.plug(); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		if err := s.obey(lines.Text()); err != nil {
			fmt.Fprintln(out, "error:", err)
			continue
		}
		fmt.Fprintln(out, "ok")
	}
	return lines.Err()
}

func (s *station) plug() error {
	if !s.uhid {
		path, err := s.key.Terminal(context.Background())
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(s.out, path)
		return err
	}
	s.gone = make(chan error, 1)
	go func() { s.gone <- s.key.UHID(context.Background()) }()
	select {
	case err := <-s.gone:
		return err
	case <-time.After(100 * time.Millisecond): // no uhid would have shown by now
	}
	_, err := fmt.Fprintln(s.out, "ready")
	return err
}

func (s *station) obey(line string) error {
	verb, arg, _ := strings.Cut(strings.TrimSpace(line), " ")
	switch verb {
	case "":
	case "touch":
		return s.setTouch(arg)
	case "finger":
		s.key.SetFinger(arg == "yes")
	case "fault":
		fault, ok := faults[arg]
		if !ok {
			return fmt.Errorf("no fault %q", arg)
		}
		s.key.Configure(func(c *fidotest.Config) { c.Fault = fault })
	case "unplug":
		s.key.Unplug()
		if s.uhid {
			return <-s.gone
		}
	case "plug":
		s.key.PlugIn()
		return s.plug()
	case "stats":
		return json.NewEncoder(s.out).Encode(struct {
			fidotest.Stats
			PINRetries int
		}{s.key.Stats(), s.key.PINRetries()})
	default:
		return fmt.Errorf("no command %q", verb)
	}
	return nil
}

func (s *station) setTouch(arg string) error {
	switch arg {
	case "now":
		s.key.SetTouch(fidotest.Touch{})
	case "never":
		s.key.SetTouch(fidotest.Touch{Never: true})
	default:
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		s.key.SetTouch(fidotest.Touch{After: d})
	}
	return nil
}
