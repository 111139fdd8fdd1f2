package main

import (
	"context"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"luksmith/internal/forecast"
	"luksmith/tokens"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
)

// predictOptions are those of the predict command.
type predictOptions struct {
	host   host.Options
	events bool
}

func predictVerb(a *app) *cobra.Command {
	o := &predictOptions{}
	s, known := newSection("Predict"), tokenFlags{}
	s.flags.StringVar(&o.host.Root, "root", "", "the machine's files are below `FOLDER`, as those of a mounted image")
	s.flags.StringVar(&o.host.ESP, "esp-path", "", "the EFI system partition is mounted at `FOLDER`")
	s.flags.StringVar(&o.host.Boot, "boot-path", "", "the extended boot partition is mounted at `FOLDER`")
	s.flags.StringVar(&o.host.EventLog, "event-log", "", "`FILE` is the event log of the boot that is running")
	s.flags.StringVar(&o.host.Variables, "efivars", "", "the variables of the firmware are in `FOLDER`")
	s.flags.BoolVar(&o.events, "events", false, "list every event of the log with what explains it")
	a.addTPM2Parameters(s.flags, known, "compare the log with the PCRs of this TPM", "tpm2-pcrs")
	a.sameTPM(known)
	return verb{use: "predict", short: "Tell which values the PCRs will have at the next boot, and why",
		sections: []section{s, a.commonSection()}, brief: true,
		run: func(ctx context.Context, _ []string) error {
			return (&prediction{app: a, predictOptions: o}).run(ctx, known["tpm2-device"].value)
		}}.command(a)
}

// prediction is one run of predict.
type prediction struct {
	*predictOptions
	app *app
}

// errNotPredicted: a value that was asked for is unknown. It has been printed why.
const errNotPredicted spoken = "a value is unknown"

func (p *prediction) run(ctx context.Context, device string) error {
	only, err := p.app.tpm2().NamedPCRs()
	if err != nil {
		return err
	}
	present, err := p.present(ctx, device)
	if err != nil {
		return err
	}
	f, err := forecast.Read(forecast.Request{Host: p.host, Present: present, Only: only})
	if err != nil {
		return p.explained(err)
	}
	defer f.Close()
	if err := p.print(f); err != nil {
		return err
	}
	if !f.Known() {
		return errNotPredicted
	}
	return nil
}

// present are the values of the TPM's PCRs. The TPM of this machine says nothing about
// the files below another root, and a machine whose TPM is out of reach has its log.
func (p *prediction) present(ctx context.Context, device string) (map[int][]byte, error) {
	if device == "" && (p.host.Root != "" || p.host.EventLog != "") {
		return nil, nil
	}
	values, err := p.app.tpm2().PresentPCRs(ctx, chain.Predictable())
	if device == "" && errors.Is(err, tokens.ErrNoDevice) {
		p.app.msg.Warning("no TPM was found, so the event log is taken as it is")
		return nil, nil
	}
	return values, err
}

// explained adds what can be done about a machine that tells too little.
func (p *prediction) explained(err error) error {
	switch {
	case errors.Is(err, host.ErrNoLog) && p.host.Root != "":
		return tokens.WithHint(err, "copy the log from the machine and name it: --event-log=FILE")
	case errors.Is(err, host.ErrNoLog):
		return tokens.WithHint(err, "firmware without UEFI or without TPM keeps none; without it nothing can be predicted")
	case errors.Is(err, os.ErrPermission):
		return tokens.WithHint(err, "only root may read the event log and the boot partition")
	}
	return err
}

func (p *prediction) print(f *forecast.Forecast) error {
	out := p.app.out
	if p.app.options.json.On() {
		return out.JSON(p.app.options.json, f.View())
	}
	for _, line := range f.Text(p.events) {
		out.Linef("%s", line)
	}
	return nil
}
