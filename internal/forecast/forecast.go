// Package forecast tells which values the PCRs will have in the next boots of a
// machine: it brings together the files, the event log, what the TPM says now and what
// was seen in the initrd, and says the result to people and to programs. It changes
// nothing.
package forecast

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"luksmith/tokens/tpm2/bootchain"
	"luksmith/tokens/tpm2/bootchain/chain"
	"luksmith/tokens/tpm2/bootchain/host"
	"luksmith/tokens/tpm2/bootrecord"
	"luksmith/tokens/tpm2/eventlog"
)

// Request says about which machine.
type Request struct {
	Host host.Options
	// Present are the values that the TPM has now, in bank SHA-256; nil takes them to
	// be as the event log says.
	Present map[int][]byte
	// Only are the PCRs that are asked for; nil asks, for each entry, for those that a
	// key would be bound to.
	Only []int
}

// Forecast is what the next boots give. Close it: files are read when they are asked
// for.
type Forecast struct {
	Host *host.Host
	// Boot is the boot that is running. Where Err is not nil, none of its PCRs is
	// explained.
	Boot *bootchain.Boot
	Err  error
	Next []Next

	only     []int
	machines []string // IDs that this system had
}

// Next is one way to start the machine again.
type Next struct {
	*bootchain.Prediction
	// Asked are the PCRs that Grade is about.
	Asked []int
	// Running says that this entry was started for the boot that is running.
	Running bool
	// Other says that the entry belongs to another system on the same machine.
	Other bool
}

// Judge is the least sure of the PCRs that were asked for.
func (n *Next) Judge() (bootchain.Grade, string) { return n.Grade(n.Asked) }

// Read looks at a machine.
func Read(r Request) (_ *Forecast, err error) {
	if r.Host.Root != "" {
		if r.Host.Root, err = filepath.Abs(r.Host.Root); err != nil {
			return nil, err
		}
	}
	followed, _ := bootrecord.ReadFollowing(r.Host.Root) // what cannot be read is said by follow
	if followed == nil {
		followed = &bootrecord.Following{}
	}
	recall(&r.Host.ESP, r.Host.Root, followed.ESP, host.HasEFI)
	recall(&r.Host.Boot, r.Host.Root, followed.Boot, host.HasEntries)
	h, err := host.Open(r.Host)
	if err != nil {
		return nil, err
	}
	record, _ := bootrecord.Current(r.Host.Root) // one that cannot be read is none
	h.System.PCRs = atUnlock(r.Present, record)
	f := &Forecast{Host: h, only: r.Only, machines: append(followed.Machines, h.MachineID)}
	var was *bootchain.Boot
	if record != nil && record.Chain != nil {
		was = bootchain.Recorded(record.Chain)
	}
	if err := f.look(h.System, was); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return f, nil
}

// recall takes the place of a partition that a person has named to follow, if one is
// mounted there and none is named now.
func recall(place *string, root, kept string, is func(folder string) bool) {
	if *place != "" || kept == "" {
		return
	}
	if kept = filepath.Join("/", root, kept); is(kept) {
		*place = kept
	}
}

// Of is the forecast for a machine that was gathered already. was is what was found
// earlier in the boot that is running, nil if nobody looked.
func Of(s *bootchain.System, was *bootchain.Boot, only []int) (*Forecast, error) {
	f := &Forecast{Host: &host.Host{System: s}, only: only}
	return f, f.look(s, was)
}

// Close closes the files.
func (f *Forecast) Close() error { return f.Host.Close() }

// atUnlock has the values that the initrd saw take the place of the present ones: what
// was extended since does not matter to a key.
func atUnlock(present map[int][]byte, record *bootrecord.Boot) map[int][]byte {
	values := map[int][]byte{}
	for _, n := range chain.Predictable() {
		if v := present[n]; v != nil {
			values[n] = v
		}
		if record != nil {
			if v := record.AtUnlock(chain.Bank, n); v != nil {
				values[n] = v
			}
		}
	}
	return values
}

// look explains the boot that is running and follows every entry.
func (f *Forecast) look(s *bootchain.System, was *bootchain.Boot) error {
	f.Boot, f.Err = s.Explain(was)
	if f.Err != nil {
		if !errors.Is(f.Err, bootchain.ErrNoEntry) {
			return f.Err
		}
		f.Boot = unexplained(f.Err)
	}
	entries, err := s.Targets()
	if err != nil {
		return err
	}
	for _, e := range entries {
		n, err := f.follow(s, e)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Target.Path, err)
		}
		f.Next = append(f.Next, *n)
	}
	return nil
}

func (f *Forecast) follow(s *bootchain.System, e bootchain.Entry) (*Next, error) {
	p, err := s.Predict(f.Boot, e)
	if err != nil {
		return nil, err
	}
	if e.Err != nil {
		p.Refuse(e.Err.Error())
	}
	n := &Next{Prediction: p, Asked: f.only}
	if n.Asked == nil {
		n.Asked = p.Chosen()
	}
	n.Running = f.Err == nil && f.Boot.Entry.ID == e.ID
	n.Other = e.MachineID != "" && f.Host.MachineID != "" && !f.Own(e.MachineID)
	return n, nil
}

// Own reports whether a machine ID is, or was, that of the system that runs: the
// running entry may have been made before the system got another one.
func (f *Forecast) Own(machine string) bool {
	return slices.Contains(f.machines, machine) || f.Err == nil && f.Boot.Entry.MachineID == machine
}

// unexplained is a boot of which nothing is explained.
func unexplained(err error) *bootchain.Boot {
	b := &bootchain.Boot{PCRs: map[int]bootchain.Explained{}}
	for _, n := range chain.Predictable() {
		b.PCRs[n] = bootchain.Explained{Reason: err.Error()}
	}
	return b
}

// Known reports whether there is a value for every PCR that was asked for, in every
// entry of this system.
func (f *Forecast) Known() bool {
	return !slices.ContainsFunc(f.Next, func(n Next) bool {
		grade, _ := n.Judge()
		return grade == bootchain.Unknown && !n.Other
	})
}

// events is how many events of a PCR the log has.
func (f *Forecast) events(pcr int) int {
	return len(eventlog.Of(f.Host.System.Machine.Events, pcr))
}
