package chain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"path"
	"strings"

	"luksmith/tokens/tpm2/bootchain/efi"
	"luksmith/tokens/tpm2/eventlog"
)

// GRUBBoot is how GRUB went in the running boot, which its configuration alone does
// not tell: it is a script.
type GRUBBoot struct {
	Config []byte // text of the grub.cfg that it ran
}

// fromGRUB are the PCRs that GRUB's script decides on.
var fromGRUB = []int{4, 8, 9}

// startGRUB repeats what GRUB did in the running boot, with the files as they are
// now. The configuration may differ from the one that ran in the arguments of
// commands linux and initrd only, line by line: everything else could send the
// script another way. (GRUB 2.12: grub/base, grub/initrd, grub/kernel; 2.06:
// grub/grub206.)
func (r *run) startGRUB(p *program) {
	s := &script{run: r}
	if err := s.prepare(p); err != nil {
		r.unknown(err.Error(), fromGRUB...)
		return
	}
	for _, e := range s.events {
		if err := s.repeat(e); err != nil {
			r.unknown(err.Error(), fromGRUB...)
			return
		}
	}
}

// script is a run of GRUB's script.
type script struct {
	*run
	events []eventlog.Event
	config string            // path of grub.cfg
	lines  map[string]string // line of the running boot → line now, where they differ
	words  map[string]string // argument that is a path, likewise
	linux  string            // arguments of the command linux that runs now
	initrd string            // argument of the command initrd
}

// prepare finds the script that ran, and what is different in the one of now.
func (s *script) prepare(p *program) error {
	s.events = s.after(p)
	for _, e := range s.events {
		name := grubPath(e.IPLText())
		if e.PCR != 9 || path.Base(name) != "grub.cfg" {
			continue
		}
		if s.config != "" && s.config != name {
			return errors.New("GRUB reads more than one grub.cfg, which was not measured")
		}
		s.config = name
	}
	if s.config == "" {
		return errors.New("the event log does not show which grub.cfg was read")
	}
	f, err := s.open(s.config)
	if err != nil {
		return errors.New(missing(s.config, err))
	}
	now, err := readText(f)
	if err != nil {
		return fmt.Errorf("%s: %w", s.config, err)
	}
	s.GRUBConfig = now
	before := now
	if s.grub != nil {
		before = s.grub.Config
	}
	return s.compare(before, now)
}

// after are the events since the firmware or a shim loaded GRUB.
func (s *script) after(p *program) []eventlog.Event {
	list := s.m.Events[s.m.firstProgram():]
	for i, e := range list {
		if e.Type == eventlog.TypeApplication && strings.EqualFold(slashes(e.ImagePath()), p.path) {
			return list[i+1:]
		}
	}
	return nil
}

// open finds a file of GRUB's, on the ESP or where the configuration lies.
func (s *script) open(name string) (File, error) {
	f, err := s.esp.Open(name)
	if err != nil && s.target.Files != nil && s.target.Files != s.esp {
		return s.target.Files.Open(name)
	}
	return f, err
}

// grubPath is a path without the device in front: "(hd0,gpt1)/lab/linux1".
func grubPath(text string) string {
	if strings.HasPrefix(text, "(") {
		if i := strings.IndexByte(text, ')'); i > 0 {
			text = text[i+1:]
		}
	}
	return text
}

// compare pairs the lines of both configurations.
func (s *script) compare(before, now []byte) error {
	s.lines, s.words = map[string]string{}, map[string]string{}
	old, young := strings.Split(string(before), "\n"), strings.Split(string(now), "\n")
	if len(old) != len(young) {
		return errors.New("grub.cfg has another shape than the one that ran")
	}
	for i := range old {
		a, b := strings.TrimSpace(old[i]), strings.TrimSpace(young[i])
		if had, twice := s.lines[a]; twice && had != b {
			return fmt.Errorf("grub.cfg changed in one of two equal lines: %q", a)
		}
		if a == b {
			continue
		}
		if err := s.edit(a, b); err != nil {
			return err
		}
	}
	return s.unambiguous(old, young)
}

// edit notes a line that changed, if it is of a kind that is understood.
func (s *script) edit(a, b string) error {
	old, young := strings.Fields(a), strings.Fields(b)
	if len(old) < 2 || len(young) < 2 || old[0] != young[0] || old[0] != "linux" && old[0] != "initrd" || !plainGRUB(a) || !plainGRUB(b) {
		return fmt.Errorf("grub.cfg changed in a line that is not understood: %q", a)
	}
	s.lines[a] = strings.Join(young, " ")
	s.words[old[1]] = young[1]
	if strings.Join(old, " ") != a || old[0] == "initrd" && (len(old) > 2 || len(young) > 2) {
		return fmt.Errorf("grub.cfg changed in a line that is not understood: %q", a)
	}
	return nil
}

// unambiguous refuses a changed line that also stands where it did not change, and
// a path that became two.
func (s *script) unambiguous(old, young []string) error {
	for i := range old {
		a, b := strings.TrimSpace(old[i]), strings.TrimSpace(young[i])
		if _, changed := s.lines[a]; changed && a == b {
			return fmt.Errorf("grub.cfg changed in one of two equal lines: %q", a)
		}
		if f := strings.Fields(a); a != b && s.words[f[1]] != strings.Fields(b)[1] {
			return fmt.Errorf("grub.cfg gives %s several followers", f[1])
		}
	}
	return nil
}

// plainGRUB reports whether GRUB takes a line as it stands: no quotes, variables,
// braces.
func plainGRUB(line string) bool {
	return !strings.ContainsFunc(line, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(" ._/=:,+-@", c))
	})
}

// repeat adds an event of the running boot as it will be.
func (s *script) repeat(e eventlog.Event) error {
	switch {
	case e.PCR == 8 && e.Type == eventlog.TypeIPL:
		return s.repeatCommand(e)
	case e.PCR == 9 && e.Type == eventlog.TypeIPL:
		return s.repeatFile(e)
	case e.PCR == 9 && isTag(e, tagOptions):
		// Without NUL at its end (grub/base): GRUB sets the options itself.
		s.add(known(9, sha256.Sum256(efi.UTF16("BOOT_IMAGE="+s.linux)), "options", s.config))
	case e.PCR == 9 && isTag(e, tagInitrd):
		return s.addFile(9, "initrd", s.initrd)
	case e.PCR == 4 && e.Type == eventlog.TypeApplication && e.ImagePath() == "":
		return s.loadKernel() // once by 2.12, twice by Debian's 2.06
	case e.PCR == 4 || e.PCR == 8 || e.PCR == 9:
		return fmt.Errorf("GRUB's event %q is not understood", e)
	}
	return nil
}

// repeatCommand is a command of the script, or the command line that it gives a
// kernel: the digest is that of the text behind the first colon.
func (s *script) repeatCommand(e eventlog.Event) error {
	kind, text, ok := strings.Cut(e.IPLText(), ": ")
	if sum := sha256.Sum256([]byte(text)); !ok || !bytes.Equal(sum[:], e.Digests[Bank]) || kind != "grub_cmd" && kind != "kernel_cmdline" {
		return fmt.Errorf("GRUB's event %q is not understood", e)
	}
	is, changed := s.lines[text]
	if kind == "kernel_cmdline" {
		is, changed = strings.TrimPrefix(s.lines["linux "+text], "linux "), s.lines["linux "+text] != ""
	}
	if !changed {
		if is = text; s.mentions(text) {
			return fmt.Errorf("what ran contains a line of grub.cfg that changed: %q", e)
		}
	}
	if command, arguments, _ := strings.Cut(is, " "); kind == "grub_cmd" {
		if err := s.noteCommand(command, arguments); err != nil {
			return err
		}
	}
	s.add(known(8, sha256.Sum256([]byte(is)), strings.ReplaceAll(kind, "_", " "), s.config))
	return nil
}

// noteCommand keeps what kernel and initrd are started with.
func (s *script) noteCommand(command, arguments string) error {
	switch command {
	case "linux":
		if s.linux != "" {
			return errors.New("GRUB loads two kernels, which was not measured")
		}
		s.linux = arguments
	case "initrd":
		if s.initrd != "" || strings.Contains(arguments, " ") {
			return errors.New("GRUB loads more than one initrd, which was not measured")
		}
		s.initrd = arguments
	}
	return nil
}

// mentions reports whether a text contains a line that changed, or a path that
// became another.
func (s *script) mentions(text string) bool {
	for line := range s.lines {
		if strings.Contains(text, line) {
			return true
		}
	}
	for was, is := range s.words {
		if was != is && strings.Contains(text, was) {
			return true
		}
	}
	return false
}

// repeatFile is a file that GRUB reads, whole.
func (s *script) repeatFile(e eventlog.Event) error {
	name := grubPath(e.IPLText())
	is, changed := s.words[name]
	if !changed {
		is = name
	}
	f, err := s.open(is)
	if err != nil {
		return errors.New(missing(is, err))
	}
	d, err := digestOf(f)
	if err != nil {
		return fmt.Errorf("%s: %w", is, err)
	}
	kernel, _, _ := strings.Cut(s.linux, " ")
	if !bytes.Equal(d[:], e.Digests[Bank]) && is != s.config && is != kernel && is != s.initrd {
		return fmt.Errorf("%s changed, and what GRUB makes of it is not known", is)
	}
	s.add(known(9, d, "content", is))
	return nil
}

func (s *script) addFile(pcr int, what, name string) error {
	f, err := s.open(name)
	if err != nil {
		return errors.New(missing(name, err))
	}
	s.add(Measurement{pcr, what, name, once(func() (Digest, error) { return digestOf(f) })})
	return nil
}

// loadKernel is the firmware's measurement of the kernel.
func (s *script) loadKernel() error {
	name, _, _ := strings.Cut(s.linux, " ")
	f, err := s.open(name)
	if err != nil {
		return errors.New(missing(name, err))
	}
	p, err := identify(f, name)
	if err != nil || p.kind != Kernel {
		return fmt.Errorf("%s is not a kernel for this machine", name)
	}
	s.kernelSeries(p)
	if n := len(s.Parts); n == 0 || s.Parts[n-1].Path != name {
		s.note(p, "entry")
	}
	s.add(p.loaded())
	return nil
}
