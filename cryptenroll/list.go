package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"luksmith/internal/cli"
	"luksmith/internal/doctor"
	"luksmith/luks2"
	"luksmith/tokens"
)

func listVerb(a *app) *cobra.Command {
	v := a.onDevice("list", "List the keyslots and tokens of a volume", []section{a.commonSection()}, a.list)
	v.brief = true
	return v.command(a)
}

// list prints what can open a volume. It writes nothing, not even to repair a
// damaged copy of the header.
func (a *app) list(ctx context.Context, path string) error {
	v, err := a.openVolume(ctx, path, false)
	if err != nil {
		return err
	}
	l := &listing{volume: v, types: a.unlocking, out: a.out, warn: a.msg.Warning}
	if a.options.json.On() {
		return a.out.JSON(a.options.json, l.view())
	}
	return a.manner.list(l)
}

// listing is what list prints of one volume.
type listing struct {
	*volume
	types tokens.Set
	out   *cli.Stream
	warn  func(text string)
}

// asSystemd prints the table of systemd-cryptenroll.
func (l *listing) asSystemd() error {
	t := &cli.Table{Columns: []cli.Column{{Name: "SLOT", Right: true}, {Name: "TYPE"}}}
	for _, s := range l.slots {
		t.Rows = append(t.Rows, []string{strconv.Itoa(s.ID), s.Kind})
	}
	return l.out.Table(t)
}

func (l *listing) table() error {
	noted := l.noted()
	t := &cli.Table{Columns: []cli.Column{{Name: "SLOT", Right: true}, {Name: "TYPE"}, {Name: "LABEL"}, {Name: "NEEDS"}, {Name: "KDF"}, {Name: "STATE"}}}
	state := len(t.Columns) - 1
	if len(noted) > 0 {
		t.Columns = append(t.Columns, cli.Column{Name: "NOTED"})
	}
	for _, s := range l.slots {
		row := []string{strconv.Itoa(s.ID), s.Kind, s.Label, strings.Join(needs(&s), ", "), kdfText(&s.KDF), s.State(), notedText(noted[s.ID])}
		t.Rows = append(t.Rows, row[:len(t.Columns)])
	}
	t.Style = func(row, column int) cli.Style {
		if row >= 0 && (column == state && !l.slots[row].WayIn() || column > state) {
			return cli.Yellow
		}
		return cli.Plain
	}
	if err := l.out.Table(t); err != nil {
		return err
	}
	space := l.header.Space
	l.out.Linef("%d of %d slots, JSON %d of %d bytes", len(l.slots), luks2.MaxKeyslots, space.JSONUsed, space.JSONTotal)
	l.remarks()
	if len(noted) > 0 {
		l.out.Linef("cryptenroll doctor %s says what is noted, and what mends it", l.words())
	}
	return nil
}

// noted is what is known without any device, by keyslot.
func (l *listing) noted() map[int][]doctor.Finding {
	noted := map[int][]doctor.Finding{}
	p := &doctor.Patient{Device: l.path, Words: l.words(), Header: l.header, Types: l.types, Slots: l.slots, Memory: memory()}
	for _, f := range doctor.Offline(p) {
		noted[*f.Slot] = append(noted[*f.Slot], f)
	}
	return noted
}

// notedText are the words of findings: "weak, memory".
func notedText(list []doctor.Finding) string {
	var words []string
	for _, f := range list {
		words = append(words, strings.TrimPrefix(f.Check, "token-"))
	}
	return strings.Join(words, ", ")
}

// remarks names what a table of keyslots does not show.
func (l *listing) remarks() {
	obstacle, repairs := l.header.WriteObstacle(), ""
	if obstacle == nil {
		repairs = "; the next command that writes repairs it"
	}
	for _, o := range tokens.OrphansByType(l.types, l.header) {
		who, what := o.Text()
		l.warn(who + " " + what)
	}
	for i, c := range l.header.Copies {
		if c.Err != nil {
			l.warn(fmt.Sprintf("header copy %d is damaged (%v)%s", i, c.Err, repairs))
		}
	}
	if obstacle != nil && l.header.Foreign == "" { // which is said already
		l.warn(strings.TrimSpace(obstacle.Error() + ". " + l.hintOf(obstacle)))
	}
	if left := l.header.Space.KeyslotsLeft; obstacle == nil && left < fewKeyslots {
		l.warn(fmt.Sprintf("further keyslots that fit: %d (%d numbers, %d bytes in the keyslots area)", left, luks2.MaxKeyslots-len(l.slots), l.header.Space.AreasFree))
	}
}

// fewKeyslots is when list says how many more there can be.
const fewKeyslots = 3

// needs is what unlocking with a slot takes.
func needs(s *tokens.Slot) []string {
	switch s.Kind {
	case tokens.KindPassword:
		return []string{"passphrase"}
	case tokens.KindOther, tokens.KindConflict, tokens.KindReencrypt:
		return nil
	}
	return s.Description.Requires
}

// kdfText describes the cost of a slot: "argon2id 64 MiB t=4 p=2".
func kdfText(k *luks2.KDF) string {
	if k.Type == luks2.KDFPBKDF2 {
		return fmt.Sprintf("%s-%s %d", k.Type, k.Hash, k.Iterations)
	}
	if k.Type == "" {
		return ""
	}
	memory := fmt.Sprintf("%d KiB", k.MemoryKiB)
	if k.MemoryKiB%1024 == 0 {
		memory = fmt.Sprintf("%d MiB", k.MemoryKiB/1024)
	}
	return fmt.Sprintf("%s %s t=%d p=%d", k.Type, memory, k.Time, k.Parallel)
}

// The views are list --json.
type listView struct {
	placeView
	UUID     string         `json:"uuid"`
	Label    string         `json:"label"`
	Sequence uint64         `json:"sequence"`
	Keyslots []slotView     `json:"keyslots"`
	Tokens   []tokenView    `json:"tokens"`
	Space    luksSpaceView  `json:"space"`
	Copies   [2]*copyStatus `json:"copies"`
}

type slotView struct {
	Slot     int      `json:"slot"`
	Type     string   `json:"type"`
	Label    string   `json:"label"`
	KDF      kdfView  `json:"kdf"`
	Priority string   `json:"priority"`
	Tokens   []int    `json:"tokens"`
	Requires []string `json:"requires"`
	State    string   `json:"state"` // "usable" or the reason why not
	// Altered says that the token does not demand any more what it was enrolled with.
	Altered bool `json:"altered"`
	// Noted is what else is known without any device, as doctor says it.
	Noted []doctor.Finding `json:"noted"`
}

type kdfView struct {
	Type       string `json:"type"`
	Hash       string `json:"hash,omitempty"`
	Iterations int    `json:"iterations,omitempty"`
	Time       int    `json:"time,omitempty"`
	MemoryKiB  int    `json:"memory_kib,omitempty"`
	Parallel   int    `json:"parallel,omitempty"`
}

type tokenView struct {
	ID       int    `json:"id"`
	Type     string `json:"type"`
	Keyslots []int  `json:"keyslots"`
	Known    bool   `json:"known"`
	Detail   any    `json:"detail"`
	Error    string `json:"error,omitempty"`
}

type luksSpaceView struct {
	JSONTotal        uint64 `json:"json_total"`
	JSONUsed         uint64 `json:"json_used"`
	KeyslotAreasFree uint64 `json:"keyslot_areas_free"`
	KeyslotsLeft     int    `json:"keyslots_left"`
}

type copyStatus struct {
	Sequence uint64 `json:"sequence"`
	Damage   string `json:"damage,omitempty"`
}

func (l *listing) view() listView {
	h := l.header
	v := listView{placeView: l.place(), UUID: h.UUID, Label: h.Label, Sequence: h.SeqID, Keyslots: []slotView{}, Tokens: []tokenView{},
		Space: luksSpaceView{h.Space.JSONTotal, h.Space.JSONUsed, h.Space.AreasFree, h.Space.KeyslotsLeft}}
	noted := l.noted()
	for _, s := range l.slots {
		one := viewSlot(&s)
		one.Noted = append(one.Noted, noted[s.ID]...)
		v.Keyslots = append(v.Keyslots, one)
	}
	for _, t := range h.Tokens {
		v.Tokens = append(v.Tokens, l.viewToken(t))
	}
	for i, c := range h.Copies {
		v.Copies[i] = &copyStatus{Sequence: c.SeqID}
		if c.Err != nil {
			v.Copies[i].Damage = c.Err.Error()
		}
	}
	return v
}

// priorityWord is the value of --priority= for a keyslot.
func priorityWord(p luks2.Priority) string {
	return map[luks2.Priority]string{luks2.PriorityIgnore: "ignore", luks2.PriorityNormal: "normal", luks2.PriorityPrefer: "prefer"}[p]
}

func viewSlot(s *tokens.Slot) slotView {
	return slotView{Slot: s.ID, Type: s.Kind, Label: s.Label, Priority: priorityWord(s.Priority), Tokens: append([]int{}, ids(s.Tokens)...),
		Requires: append([]string{}, needs(s)...), State: s.State(), Altered: s.Altered, Noted: []doctor.Finding{},
		KDF: kdfView{string(s.KDF.Type), s.KDF.Hash, s.KDF.Iterations, s.KDF.Time, s.KDF.MemoryKiB, s.KDF.Parallel}}
}

func (l *listing) viewToken(t luks2.Token) tokenView {
	v := tokenView{ID: t.ID, Type: t.Type, Keyslots: append([]int{}, t.Keyslots...)}
	h := l.types.ByType(t.Type)
	if v.Known = h != nil; !v.Known {
		return v
	}
	d, err := h.Describe(t)
	if err != nil {
		v.Error = err.Error()
	}
	v.Detail = d.Detail
	return v
}
