// Command luksmith-sheet draws recovery sheets for cryptenroll, which starts it and
// speaks to it over stdin and stdout (package sheet). It is of no use to a person.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

	"luksmith/internal/helper"
	"luksmith/tokens/recovery/sheet"
	"luksmith/tokens/recovery/sheet/draw"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", sheet.Program, err)
		os.Exit(1)
	}
}

func run() error {
	if err := helper.Confine(); err != nil {
		return err
	}
	// Ctrl-C goes to all processes of a terminal. What it means is for the command
	// to say, which ends this program by closing its input.
	signal.Ignore(os.Interrupt)
	return helper.Serve(sheet.Program, os.Stdin, os.Stdout, methods())
}

func methods() map[string]helper.Method { return map[string]helper.Method{sheet.MethodDraw: drawSheet} }

// drawSheet implements [sheet.MethodDraw].
func drawSheet(_ context.Context, r *helper.Request) (*helper.Reply, error) {
	var params sheet.DrawParams
	if err := r.Decode(&params); err != nil {
		return nil, err
	}
	if len(r.Secrets) != 1 {
		return nil, &helper.Error{Code: "bad-request", Message: fmt.Sprintf("%d secrets instead of the key", len(r.Secrets))}
	}
	params.Sheet.Key = r.Secrets[0]
	var file helper.Pieces
	if err := draw.Page(&file, &params.Sheet, params.Format); err != nil {
		file.Wipe()
		return nil, err
	}
	return &helper.Reply{Secrets: file.Secrets()}, nil
}
