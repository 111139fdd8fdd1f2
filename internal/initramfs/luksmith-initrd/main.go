// Command luksmith-initrd looks into initramfs images for cryptsetup-unit, which is read
// at every boot and must not carry what unpacks them: `cryptsetup-unit initrd check`.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"luksmith/internal/cli"
	"luksmith/internal/initramfs"
	"luksmith/internal/initramfs/check"
	"luksmith/internal/initramfs/image"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdout)
	if err != nil && !errors.Is(err, errLacking) {
		fmt.Fprintf(os.Stderr, "cryptsetup-unit: error: %s\n", cli.Escape(err.Error()))
	}
	if err != nil {
		os.Exit(1)
	}
}

// errLacking means that the image lacks what was printed.
var errLacking = errors.New("the image lacks something")

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := pflag.NewFlagSet("initrd check", pflag.ContinueOnError)
	device := flags.String("volume", "", "the volume that has to be opened")
	jsonMode := flags.String("json", "off", "pretty, short or off")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 {
		return errors.New("usage: cryptsetup-unit initrd check [--volume=DEVICE] [--json=pretty|short] IMAGE")
	}
	v := check.NewVolume()
	if *device != "" {
		var err error
		if v, err = check.ReadVolume(ctx, *device); err != nil {
			return fmt.Errorf("reading the header of %s: %w", *device, err)
		}
	}
	im, err := image.Open(flags.Arg(0))
	if err != nil {
		return err
	}
	findings := check.Image(im, v)
	if err := print(out, findings, *jsonMode); err != nil {
		return err
	}
	if !check.OK(findings) {
		return errLacking
	}
	return nil
}

// print writes a line for each part, or one JSON document.
func print(out io.Writer, findings []check.Finding, mode string) error {
	switch mode {
	case "pretty", "short":
		e := json.NewEncoder(out)
		if mode == "pretty" {
			e.SetIndent("", "  ")
		}
		return e.Encode(initramfs.Verdict{OK: check.OK(findings), Parts: findings})
	case "off":
	default:
		return fmt.Errorf("--json=%s: want pretty, short or off", mode)
	}
	for _, f := range findings {
		verdict := "there"
		if !f.OK {
			verdict = "MISSING"
		}
		fmt.Fprintf(out, "%-8s %-9s %s\n", verdict, f.Part, cli.Escape(f.What))
		if f.Remedy != "" {
			fmt.Fprintf(out, "         %s\n", cli.Escape(f.Remedy))
		}
	}
	return nil
}
