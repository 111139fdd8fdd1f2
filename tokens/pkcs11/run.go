package pkcs11

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"luksmith/luks2"
	"luksmith/luks2/secret"
	"luksmith/tokens"
	"luksmith/tokens/pkcs11/wire"
)

// job is a record whose secret is wanted back.
type job struct {
	token  luks2.Token
	record *record
	// selects is the URI that selects token and key: the record's, narrowed by the
	// administrator's.
	selects uri
	// group numbers jobs of which one is enough, such as the forms in which one
	// secret was encrypted.
	group int
	done  bool
	err   error // why it is not done, once something was tried
}

// recovered is what a job gave.
type recovered struct {
	device *wire.Token
	key    *wire.PrivateKey
	// candidates is how many usable private keys of the token the URI selects.
	candidates int
	// secret came from the token, passphrase is its base64 text, which opens a
	// keyslot. Both are borrowed for the call.
	secret, passphrase secret.Secret
}

// run recovers the secrets of jobs from the tokens that are plugged in. It logs
// into each token once at most, however many jobs need it, and tries every job on
// every token that it may be for, until one of its group is done.
type run struct {
	h      *Handler
	ui     tokens.UI
	jobs   []*job
	admin  uri // for its PIN
	pins   *pins
	memory *memory
	// only restricts the tokens; nil takes all.
	only func(*wire.Token) bool
	// accept judges a secret: nil if it was the right one, tokens.ErrWrongKey if
	// another key may do better.
	accept func(context.Context, *job, *recovered) error

	visited  map[string]bool // identities of tokens
	unranked bool            // reading public keys broke a session
	stranger bool            // the token that is visited is one, see isStranger
}

// maxSessions bounds the processes of one run: a module may crash at each token, and
// give the token another name each time.
const maxSessions = 16

// all runs until every group is done or every token was visited. Failures of jobs
// are in the jobs; the error is for what ends the run: the context, the person, or
// a helper or module that does not even list its tokens.
func (r *run) all(ctx context.Context) error {
	r.visited = map[string]bool{}
	for range maxSessions {
		again, err := r.session(ctx)
		if err != nil || !again {
			return err
		}
	}
	return nil // the jobs say why they failed
}

// session visits tokens with one process. again means that the process was lost
// and another one has to go on with the tokens that are left.
func (r *run) session(ctx context.Context) (again bool, err error) {
	s, err := r.h.open(ctx)
	if err != nil {
		return false, err
	}
	defer s.close()
	list, err := s.list(ctx)
	if err != nil {
		return false, err
	}
	r.memory.saw(list)
	devices := r.order(ctx, s, list.Tokens)
	for _, device := range devices {
		if s.broken || r.finished() {
			break
		}
		r.visited[identity(device)] = true
		err := r.visit(ctx, s, device)
		if ctx.Err() != nil || errors.Is(err, tokens.ErrCancelled) {
			return false, cmp.Or(err, ctx.Err()) // a session that ended is no error of the visit
		}
	}
	return s.broken, ctx.Err()
}

// finished reports whether a job of every group is done.
func (r *run) finished() bool {
	return !slices.ContainsFunc(r.jobs, func(j *job) bool { return !r.groupDone(j.group) })
}

func (r *run) groupDone(group int) bool {
	return slices.ContainsFunc(r.jobs, func(j *job) bool { return j.group == group && j.done })
}

// order returns the tokens to visit, the likeliest first: those that the URI of a
// job names, then those that show a public key or certificate that a URI selects.
// It matters when there are several, since each may cost a question.
func (r *run) order(ctx context.Context, s *session, list []wire.Token) []*wire.Token {
	var devices []*wire.Token
	for _, device := range usable(list) {
		if !r.visited[identity(device)] && (r.only == nil || r.only(device)) && len(r.jobsFor(device)) > 0 {
			devices = append(devices, device)
		}
	}
	if len(devices) < 2 || r.unranked {
		return devices
	}
	rank := map[*wire.Token]int{}
	for _, device := range devices {
		rank[device] = r.rank(ctx, s, device)
	}
	r.unranked = s.broken
	slices.SortStableFunc(devices, func(a, b *wire.Token) int { return rank[b] - rank[a] })
	return devices
}

func (r *run) rank(ctx context.Context, s *session, device *wire.Token) int {
	rank := 0
	for _, j := range r.jobsFor(device) {
		if j.selects.namesToken() {
			return 2
		}
		if j.selects.namesObject() && !s.broken {
			keys, err := s.publicKeys(ctx, device.Slot, j.selects)
			if err == nil && slices.ContainsFunc(keys, func(k wire.PublicKey) bool { return j.selects.matchesObject(k.ID, k.Label) }) {
				rank = 1
			}
		}
	}
	return rank
}

// jobsFor are the jobs that are not done and may be for a token.
func (r *run) jobsFor(device *wire.Token) []*job {
	var list []*job
	for _, j := range r.jobs {
		if !r.groupDone(j.group) && j.selects.matchesToken(device) && !r.memory.lacks(device, j) {
			list = append(list, j)
		}
	}
	return list
}

// visit logs into a token and tries its jobs. The error is also that of the jobs.
func (r *run) visit(ctx context.Context, s *session, device *wire.Token) error {
	jobs := r.jobsFor(device)
	err := r.memory.refusal(device)
	if err == nil {
		if r.stranger = r.isStranger(ctx, s, device, jobs); s.broken {
			r.unranked = true
			delete(r.visited, identity(device)) // once more, without looking
			return nil
		}
		err = r.login(ctx, s, device)
		switch {
		case err == nil || ctx.Err() != nil || errors.Is(err, tokens.ErrCancelled):
		case errors.Is(err, tokens.ErrNoDevice):
			r.memory.vanished(device)
		default:
			r.memory.refused(device, err)
		}
	}
	if err != nil {
		for _, j := range jobs {
			j.err = err
		}
		return err
	}
	for _, j := range jobs {
		if r.groupDone(j.group) {
			continue
		}
		if j.err = r.try(ctx, s, device, j); errors.Is(j.err, tokens.ErrNoDevice) && !r.memory.lacks(device, j) {
			r.memory.vanished(device)
		}
		if s.broken || ctx.Err() != nil {
			return j.err
		}
	}
	return nil
}

// isStranger reports whether a token shows public keys or certificates, but none that
// goes with the jobs: most likely it is another card, and only the header says that it
// may have the key. One that the administrator names, or that shows nothing to those
// who have not logged in, is none.
func (r *run) isStranger(ctx context.Context, s *session, device *wire.Token, jobs []*job) bool {
	if r.unranked || r.admin.namesToken() || !device.LoginRequired {
		return false
	}
	for _, j := range jobs {
		if !j.selects.namesObject() {
			return false
		}
		keys, err := s.publicKeys(ctx, device.Slot, j.selects)
		if err != nil || slices.ContainsFunc(keys, func(k wire.PublicKey) bool { return j.selects.matchesObject(k.ID, k.Label) }) {
			return false
		}
	}
	all, err := s.publicKeys(ctx, device.Slot, uri{})
	return err == nil && len(all) > 0
}

// try tries one job with every key of the token that it may be for.
func (r *run) try(ctx context.Context, s *session, device *wire.Token, j *job) error {
	all, err := s.privateKeys(ctx, device.Slot, j.selects)
	if err != nil {
		return err
	}
	keys := slices.DeleteFunc(slices.Clone(all), func(k wire.PrivateKey) bool { return !fits(&k, j.record) })
	if len(keys) == 0 {
		r.memory.lack(device, j)
		return fmt.Errorf("%w: %s has no %s key %s", tokens.ErrNoDevice, deviceName(device), j.record.kind(), j.selects)
	}
	for i := range keys {
		err = r.tryKey(ctx, s, j, &recovered{device: device, key: &keys[i], candidates: len(all)})
		if !errors.Is(err, tokens.ErrWrongKey) {
			break
		}
	}
	j.done = err == nil
	return err
}

// tryKey recovers the secret with one key and has it judged.
func (r *run) tryKey(ctx context.Context, s *session, j *job, got *recovered) error {
	stop := r.showWaiting(got.device)
	raw, err := s.recover(ctx, got.device.Slot, got.key, j.record, r.pins.right[identity(got.device)])
	stop()
	if err != nil {
		return err
	}
	defer raw.Wipe()
	got.secret, got.passphrase = raw, secret.Base64(raw)
	defer got.passphrase.Wipe()
	return r.accept(ctx, j, got)
}

// touchNotice is after what time a token that computes is suspected of waiting for
// a touch. PKCS#11 has no way to say it.
const touchNotice = 1500 * time.Millisecond

// showWaiting shows a line if the token takes long. The caller calls stop.
func (r *run) showWaiting(device *wire.Token) (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		select {
		case <-done:
			return
		case <-time.After(touchNotice):
		}
		defer r.ui.Show("Waiting for " + deviceName(device) + "; touch it if it blinks")()
		<-done
	}()
	return func() { close(done); <-gone }
}
