package tpm2

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"luksmith/tokens"
	"luksmith/tokens/tpm2/chip"
	"luksmith/tokens/tpm2/eventlog"
	"luksmith/tokens/tpm2/policy"
)

// explain turns the reasons for which a policy is not satisfied into what the
// user is told: which PCRs moved, by what event, and what repairs it. Other errors
// stay as they are.
func (o *opener) explain(r *tokenRun, err error) error {
	e := &tokens.PolicyError{Bank: r.t.Bank.String()}
	hint := o.renewal("re-seal it, with a passphrase or the recovery key: cryptenroll reseal")
	switch {
	case errors.Is(err, policy.ErrPCRsDiffer):
		o.explainPCRs(r.t, e)
		if onlyLatched(e) {
			hint = "the volume key was measured in this boot: start the machine again, or open the volume with a passphrase or the recovery key"
		} else if r.t.boot() != nil {
			hint = "open the volume with a passphrase or the recovery key; what seals it for this boot and the next ones is: cryptenroll follow" + o.deviceArgument()
		}
	case errors.Is(err, policy.ErrNoSignature):
		e.Detail = err.Error()
		hint = "start the kernel that the signatures belong to, or name its signature file with --tpm2-signature="
	case errors.Is(err, policy.ErrNotPredicted):
		o.explainPrediction(r, e)
		hint = "predict the values of this boot too: systemd-pcrlock make-policy"
	default:
		return err
	}
	return tokens.WithHint(e, hint)
}

// onlyLatched reports whether the latch alone keeps a token from opening.
func onlyLatched(err error) bool {
	e, ok := errors.AsType[*tokens.PolicyError](err)
	return ok && len(e.PCRs) == 1 && e.PCRs[0].PCR == policy.LatchPCR && chip.Unused(e.PCRs[0].Enrolled)
}

// renewal is the hint that makes a token open again: a call of reseal for its keyslot.
// One that stands for no keyslot, being a factor of a combination or a file, cannot be
// re-sealed.
func (o *opener) renewal(reseal string) string {
	if o.slot == "" {
		return "enrol it anew, with a passphrase or the recovery key"
	}
	return reseal + o.slot + o.deviceArgument()
}

// deviceArgument are the words that name the TPM, unless it is the only one, and the
// volume.
func (o *opener) deviceArgument() string {
	words := " " + o.volume.OnCommandLine()
	if device := o.h.DeviceOption(); device != "--tpm2-device=auto" {
		words = " " + device + words
	}
	return words
}

// explainPCRs compares the literal PCRs with those at enrolment.
func (o *opener) explainPCRs(t *token, e *tokens.PolicyError) {
	present, err := o.presentValues(&t.Conditions), error(nil)
	if present == nil {
		present, err = o.c.ReadPCRs(t.Bank, t.PCRs)
	}
	if err != nil {
		e.Detail = "the present values cannot be read: " + err.Error()
		return
	}
	events := o.h.Paths.bootEvents()
	recorded := t.recorded()
	if recorded == nil {
		e.Detail = "the token recorded no PCR values, so only the digest of its policy is known. " + t.singleCause(present, events)
		return
	}
	for _, i := range t.PCRs.List() {
		if !bytes.Equal(recorded[i], present[i]) {
			m := tokens.PCRMismatch{PCR: i, Name: chip.PCRName(i), Enrolled: recorded[i], Actual: present[i]}
			m.Events = o.changedEvents(t, m, events)
			e.PCRs = append(e.PCRs, m)
		}
	}
	e.Cause = (&change{o.h, t, events}).cause(e.PCRs)
	if len(e.PCRs) == 0 {
		e.Detail = "every PCR has its value of the enrolment again; a PCR changed meanwhile or the token was altered"
	}
}

// changedEvents compares the events of one PCR with what was kept of the
// enrolment's.
func (o *opener) changedEvents(t *token, m tokens.PCRMismatch, events []eventlog.Event) []string {
	if len(events) == 0 {
		return nil
	}
	name := t.Bank.String()
	if !bytes.Equal(eventlog.Replay(events, name, m.PCR), m.Actual) {
		return []string{"the event log of this boot does not account for it"}
	}
	old, ok := o.h.Paths.oldEvents(t, m)
	if !ok {
		return nil
	}
	return eventlog.Compare(old, events, name, m.PCR)
}

// oldEvents are the events of one PCR at the enrolment, as far as they were kept: in
// full on the machine, or their beginnings in the token.
func (p Paths) oldEvents(t *token, m tokens.PCRMismatch) (old eventlog.Old, ok bool) {
	if old, ok = p.savedLog(t.policy[0], t.Bank, m.PCR, m.Enrolled); ok {
		return old, true
	}
	old.Names = nil
	old.Prefixes, ok = t.extra.TPM2.Events[strconv.Itoa(m.PCR)]
	return old, ok
}

// explainPrediction names the PCRs whose value is not among the predicted ones.
func (o *opener) explainPrediction(r *tokenRun, e *tokens.PolicyError) {
	lock := r.PCRLock
	e.Bank = lock.Bank.String()
	e.Detail = "pcrlock did not predict the present values"
	present, err := o.c.ReadPCRs(lock.Bank, lock.Set())
	if err != nil {
		return
	}
	for _, i := range lock.Set().List() {
		if !contains(lock.Allowed[i], present[i]) {
			e.PCRs = append(e.PCRs, tokens.PCRMismatch{PCR: i, Name: chip.PCRName(i), Enrolled: lock.Allowed[i][0], Actual: present[i]})
		}
	}
}

func contains(list [][]byte, value []byte) bool {
	for _, v := range list {
		if bytes.Equal(v, value) {
			return true
		}
	}
	return false
}

// singleCause tests whether one change to one PCR, of those that the event log
// allows, gives the policy of a token that recorded nothing. It never guesses: the
// answer is exact or that there is none.
func (t *token) singleCause(present chip.PCRValues, events []eventlog.Event) string {
	tried := 0
	for _, pcr := range t.PCRs.List() {
		for _, c := range causes(t.Bank, pcr, events, present[pcr]) {
			values := chip.PCRValues{}
			for i, v := range present {
				values[i] = v
			}
			values[pcr] = c.value
			tried++
			if t.Explains(t.policy, values) {
				return fmt.Sprintf("It fits if PCR %d (%s) alone is different: %s", pcr, chip.PCRName(pcr), c.text)
			}
		}
	}
	return fmt.Sprintf("None of the %d single changes that the event log allows explains it", tried)
}

// cause is a value that a PCR may have had at enrolment, and what happened since
// if it did.
type cause struct {
	value []byte
	text  string
}

// maxCauseEvents bounds the work of causes, which is quadratic.
const maxCauseEvents = 500

// causes are the values that a PCR would have if one event were not there, if
// nothing had been measured after some event, or if Secure Boot were switched.
func causes(b chip.Bank, pcr int, events []eventlog.Event, is []byte) []cause {
	name := b.String()
	list := []cause{{eventlog.Start(events, name, pcr), "nothing had been measured into it then"}}
	of := eventlog.Of(events, pcr)
	if len(of) > maxCauseEvents || !bytes.Equal(eventlog.Replay(events, name, pcr), is) {
		return list
	}
	value := list[0].value
	for i, e := range of {
		if i > 0 {
			list = append(list, cause{value, e.String() + " and what follows it is new"})
		}
		list = append(list, cause{replayRest(name, value, of[i+1:]), e.String() + " is new"})
		if digest, on, ok := e.SecureBootFlipped(name); ok {
			e.Digests = map[string][]byte{name: digest}
			list = append(list, cause{replayRest(name, eventlog.Extend(name, value, e), of[i+1:]), "Secure Boot was " + onOff(on) + " and is " + onOff(!on)})
		}
		value = eventlog.Extend(name, value, of[i])
	}
	return list
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func replayRest(bank string, value []byte, events []eventlog.Event) []byte {
	for _, e := range events {
		value = eventlog.Extend(bank, value, e)
	}
	return value
}
