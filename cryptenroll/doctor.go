package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"luksmith/crypttab"
	"luksmith/internal/cli"
	"luksmith/internal/doctor"
	"luksmith/luks2"
	"luksmith/tokens"
)

// doctorOptions are those of the doctor command.
type doctorOptions struct {
	crypttab, initrd string
	esp, bootPath    string // where the boot partitions are mounted
	fix              bool
}

func doctorVerb(a *app) *cobra.Command {
	o := &doctorOptions{}
	s := newSection("Doctor")
	s.flags.StringVar(&o.crypttab, "crypttab", "", "the line that attaches it is in `FILE` (default for disks: /etc/crypttab)")
	s.flags.StringVar(&o.initrd, "initrd", "", "the machine starts with this `IMAGE` (default: the running kernel's, with /etc/luksmith/boot)")
	s.flags.StringVar(&o.esp, "esp-path", "", "the EFI system partition is mounted at `FOLDER`")
	s.flags.StringVar(&o.bootPath, "boot-path", "", "the extended boot partition is mounted at `FOLDER`")
	s.flags.BoolVar(&o.fix, "fix", false, "mend what needs no key and takes no way in away, after asking")
	s.flags.BoolVar(&a.options.yes, "yes", false, "mend without asking")
	return a.onDevice("doctor", "Tell whether the volume will open after the next reboot, and what to do if not",
		[]section{s, a.unlockSection(tokenFlags{}), a.commonSection()}, func(ctx context.Context, device string) error {
			if err := a.options.checkTest(true); err != nil { // the options name devices
				return err
			}
			return (&examination{app: a, doctorOptions: o}).run(ctx, device)
		}).command(a)
}

// examination is one run of doctor.
type examination struct {
	*doctorOptions
	app    *app
	volume *volume
}

// spoken is [cli.ErrSaid] with a status of its own.
type spoken string

func (s spoken) Error() string { return cli.ErrSaid.Error() + ": " + string(s) }

func (spoken) Unwrap() error { return cli.ErrSaid }

const (
	errDoctorWarns spoken = "warnings"
	errDoctorFails spoken = "problems"
)

// doctorExits gives scripts the gravest finding, or that a value is unknown.
var doctorExits = []cli.Exit{{Err: errDoctorWarns, Status: cli.ExitWarning}, {Err: errNotPredicted, Status: cli.ExitWarning}, {Err: errDoctorFails, Status: cli.ExitProblem}}

func (x *examination) run(ctx context.Context, path string) (err error) {
	if x.app.options.image.given() {
		return usagef("doctor tells what this machine will do at its next boot; a disk image is not part of it")
	}
	if x.volume, err = x.app.openVolume(ctx, path, false); err != nil {
		return err
	}
	p, err := x.patient(ctx)
	if err != nil {
		return err
	}
	found := doctor.Examine(p)
	view := x.view(p, found)
	if x.fix {
		if view.Fixed, err = x.mend(ctx, found); err != nil {
			return err
		}
	}
	if err := x.print(view); err != nil {
		return err
	}
	switch doctor.Worst(view.Findings) {
	case doctor.Problem:
		return errDoctorFails
	case doctor.Warning:
		return errDoctorWarns
	}
	return nil
}

// patient gathers what there is to know. It asks nobody and uses up no try.
func (x *examination) patient(ctx context.Context) (*doctor.Patient, error) {
	v := x.volume
	p := &doctor.Patient{Device: v.path, Words: v.words(), Header: v.header, Types: x.app.unlocking, Slots: v.slots,
		Examined: map[int]tokens.Examination{}, Unexamined: map[string]error{}, Memory: memory()}
	for _, h := range x.app.unlocking {
		list := v.tokensOf(h)
		examiner, ok := h.(tokens.Examiner)
		if !ok || len(list) == 0 {
			continue
		}
		found, err := examiner.Examine(ctx, v.unlockRequest(list, nil))
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			p.Unexamined[h.Name()] = err
		}
		for _, e := range found {
			p.Examined[e.Token.ID] = e
		}
	}
	boot, err := x.boot(v)
	if boot != nil {
		boot.Initrd = x.initrdFindings(ctx)
		boot.Next, boot.NextErr = x.next(ctx)
	}
	p.Boot = boot
	return p, err
}

// memory is what the machine has in all, 0 if the kernel does not say.
func memory() uint64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// boot is about the crypttab that attaches the volume: the one named, else that of
// the system for a disk. Image files are attached elsewhere.
func (x *examination) boot(v *volume) (*doctor.Boot, error) {
	path, set := x.crypttab, "cryptsetup-unit crypttab set "
	if path != "" {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		set += tokens.ShellWord("--file="+path) + " "
	} else {
		info, err := os.Stat(v.path)
		if err != nil || info.Mode()&os.ModeDevice == 0 && x.initrd == "" {
			return nil, nil
		}
		path = filepath.Join(x.app.root, "etc/crypttab")
	}
	// Reading a line sets what it says in the handlers, so they are others.
	b := &doctor.Boot{Grammar: slices.Concat(crypttab.Table, x.app.types().Grammar()), UUID: v.header.UUID, Devices: []string{v.path},
		Set: set + tokens.ShellWord(v.path)}
	if h := x.app.options.header; h != "" { // crypttab set reads the header from the device
		b.HeaderFile, b.Set = h, ""
	}
	file, err := crypttab.Read(path) // empty if it is not there
	if err != nil {
		return nil, err
	}
	b.Crypttab = file
	b.Lint = crypttab.Lint(file, &crypttab.LintOptions{Grammar: b.Grammar})
	return b, nil
}

// mend does what needs no key, after asking, and says what it did.
func (x *examination) mend(ctx context.Context, found []doctor.Finding) (done []doctor.Finding, err error) {
	var list []doctor.Finding
	var texts []string
	for _, f := range found {
		if f.Fix != nil {
			list, texts = append(list, f), append(texts, f.About)
		}
	}
	if len(list) == 0 {
		return nil, nil
	}
	if !x.app.options.yes {
		yes, err := x.app.asking().asker().Confirm(ctx, fmt.Sprintf("Mend %s of %s?", strings.Join(texts, ", "), x.volume.path))
		if errors.Is(err, tokens.ErrNoPrompt) {
			return nil, tokens.WithHint(err, "--yes mends without asking")
		}
		if err != nil || !yes {
			return nil, err
		}
	}
	v, err := x.app.openVolume(ctx, x.volume.path, true)
	if err != nil {
		return nil, err
	}
	err = v.device.Update(ctx, func(tx *luks2.Tx) error {
		for _, f := range list {
			if err := f.Fix(tx); err != nil {
				return fmt.Errorf("mending %s: %w", f.About, err)
			}
		}
		return nil
	})
	return list, err
}

// doctorView is doctor --json.
type doctorView struct {
	Device string `json:"device"`
	UUID   string `json:"uuid"`
	// Unattended are the keyslots that open the volume now without a person.
	Unattended []int            `json:"unattended"`
	Worst      doctor.Severity  `json:"worst"`
	Findings   []doctor.Finding `json:"findings"`
	Fixed      []doctor.Finding `json:"fixed,omitempty"`
}

func (x *examination) view(p *doctor.Patient, found []doctor.Finding) *doctorView {
	v := &doctorView{Device: p.Device, UUID: p.Header.UUID, Unattended: []int{}, Findings: found}
	for _, s := range p.Slots {
		if s.Skipped != "" {
			continue
		}
		for _, t := range s.Tokens {
			if verdict := p.Examined[t.ID].Verdict; verdict == tokens.OpensAlone || verdict == tokens.OpensNextBoot {
				v.Unattended = append(v.Unattended, s.ID)
			}
		}
	}
	return v
}

// print ends with what became of the question.
func (x *examination) print(v *doctorView) error {
	mended := func(f doctor.Finding) bool {
		return slices.ContainsFunc(v.Fixed, func(done doctor.Finding) bool { return done.About == f.About && done.Check == f.Check })
	}
	v.Findings = slices.DeleteFunc(v.Findings, mended)
	v.Worst = doctor.Worst(v.Findings)
	out := x.app.out
	if x.app.options.json.On() {
		return out.JSON(x.app.options.json, v)
	}
	for _, f := range v.Fixed {
		out.Linef("mended: %s", f.About)
	}
	for _, f := range v.Findings {
		style := [...]cli.Style{doctor.Note: cli.Plain, doctor.Warning: cli.Yellow, doctor.Problem: cli.Red}[f.Severity]
		out.Labelled(style, f.Severity.String(), f.About+": "+f.Text)
		if f.Command != "" {
			out.Pasted("    " + f.Command)
		}
	}
	out.Linef("%s", v.verdict())
	return nil
}

// verdict is the answer in one line.
func (v *doctorView) verdict() string {
	var counts []string
	for _, severity := range []doctor.Severity{doctor.Problem, doctor.Warning} {
		n := 0
		for _, f := range v.Findings {
			if f.Severity == severity {
				n++
			}
		}
		switch n {
		case 0:
		case 1:
			counts = append(counts, "1 "+severity.String())
		default:
			counts = append(counts, fmt.Sprintf("%d %ss", n, severity))
		}
	}
	if len(counts) == 0 {
		counts = []string{"nothing to do"}
	}
	return fmt.Sprintf("%s: %s; %s.", v.Device, strings.Join(counts, ", "), v.opens())
}

// opens says who has to be there when the volume is opened.
func (v *doctorView) opens() string {
	switch len(v.Unattended) {
	case 0:
		return "a person has to open it"
	case 1:
		return fmt.Sprintf("keyslot %d opens it without a person", v.Unattended[0])
	}
	return fmt.Sprintf("%d keyslots open it without a person", len(v.Unattended))
}
