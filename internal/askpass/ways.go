package askpass

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"luksmith/luks2/secret"
	"luksmith/tokens"
)

// way asks, and returns soon after its context ended.
type way struct {
	// alone says that the way can answer without another one. The keyring's cannot:
	// somebody has to fill it.
	alone bool
	ask   func(ctx context.Context, v view) (Answer, error)
}

// wayResult is what a way came to.
type wayResult struct {
	way
	answer Answer
	err    error
}

// once asks in all ways at the same time. The first answer wins, or the failure
// of the last way that could answer alone; the others are withdrawn before it is
// returned.
func (p *Pending) once(ctx context.Context, v view) (Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ways := p.ways()
	results := make(chan wayResult)
	alone := 0
	for _, w := range ways {
		if w.alone {
			alone++
		}
		go func() {
			answer, err := w.ask(ctx, v)
			results <- wayResult{w, answer, err}
		}()
	}
	var won *wayResult
	var failed []error
	for range ways {
		r := <-results
		if won != nil {
			r.answer.Wipe()
			continue
		}
		if r.err == nil || errors.Is(r.err, tokens.ErrCancelled) || ctx.Err() != nil {
			won = &r
		} else if r.alone {
			failed = append(failed, r.err)
			if len(failed) == alone {
				won = &wayResult{err: p.nobody(errors.Join(failed...))}
			}
		}
		if won != nil {
			cancel(context.Canceled)
		}
	}
	return won.answer, won.err
}

// nobody is the error when there is no way to ask, or none works.
func (p *Pending) nobody(why error) error {
	return &noPrompt{what: p.q.Text, why: why, hint: p.asker.statics.namesOf(&p.q).hint(), silent: p.asker.o.Headless}
}

// ways are those that the options allow.
func (p *Pending) ways() []way {
	o := p.asker.o
	var list []way
	free := newGate() // opened when the consoles may ask
	if o.Plymouth == "" {
		free.open()
	} else {
		list = append(list, way{true, func(ctx context.Context, v view) (Answer, error) { return p.byPlymouth(ctx, v, free) }})
	}
	for _, c := range p.asker.consoles() {
		list = append(list, way{true, func(ctx context.Context, v view) (Answer, error) { return p.onConsole(ctx, c, v, free) }})
	}
	if o.AgentDir != "" {
		list = append(list, way{true, p.agentWay(len(list) == 0)})
	}
	if p.q.cacheable(o.Cache) {
		list = append(list, way{false, p.fromCache})
	}
	return list
}

// agentWay asks agents, for a limited time if there is nothing else.
func (p *Pending) agentWay(only bool) func(ctx context.Context, v view) (Answer, error) {
	patience := p.asker.o.AgentPatience
	if !only || patience == 0 {
		return p.byAgent
	}
	return func(ctx context.Context, v view) (Answer, error) {
		select {
		case <-p.revealed.ch:
		case <-ctx.Done():
			return Answer{}, cause(ctx)
		}
		limited, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		answer, err := p.byAgent(limited, v)
		if err != nil && ctx.Err() == nil && limited.Err() != nil {
			err = fmt.Errorf("%w: there is no console, and no password agent answered within %v", tokens.ErrTimeout, patience)
		}
		return answer, err
	}
}

// onConsole asks on a terminal, once plymouth does not.
func (p *Pending) onConsole(ctx context.Context, c *Console, v view, free *gate) (Answer, error) {
	select {
	case <-free.ch:
	case <-ctx.Done():
		return Answer{}, cause(ctx)
	}
	line := newPrompt(p.asker.o.Echo, p.revealed)
	line.first = p.q.isPIN()
	line.skippable, line.onKey = p.asker.o.Skippable, p.asker.o.OnKey
	line.keep = p.q.Keep
	if !v.repeat {
		line.notices = p.q.notices()
	}
	p.show(c, line, v.suffix)
	defer p.hide(c)
	s, err := c.ask(ctx, line)
	if line.keeps {
		p.mu.Lock()
		p.kept = append(p.kept, c)
		p.mu.Unlock()
	}
	if err != nil {
		return Answer{}, err
	}
	return Answer{Secrets: []secret.Secret{s}, Source: FromConsole}, nil
}

// show gives a prompt of a console its text and has SetText change it until hide.
func (p *Pending) show(c *Console, prompt *prompt, suffix string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	prompt.text = p.label(p.text) + suffix
	if p.lines == nil {
		p.lines = map[*Console]*line{}
	}
	p.lines[c] = &line{prompt, suffix}
}

func (p *Pending) hide(c *Console) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.lines, c)
}

// impossibleAnswers is how often a text that cannot be a PIN is asked for again:
// agents may answer by themselves.
const impossibleAnswers = 3

// possible asks until the answer may be handed to a device: neither is it one that
// the device cannot have, nor a passphrase of the volume.
func (p *Pending) possible(ctx context.Context) (Answer, error) {
	for round := 1; ; round++ {
		answer, err := p.once(ctx, view{})
		if err != nil || !p.q.isPIN() || !answer.typed() {
			return answer, err
		}
		why := p.judge(ctx, answer.Secrets[0])
		if why == nil || round == impossibleAnswers && !errors.Is(why, tokens.ErrSkipped) {
			return answer, nil
		}
		answer.Wipe()
		if errors.Is(why, tokens.ErrSkipped) || ctx.Err() != nil {
			return Answer{}, why
		}
		p.asker.Note(fmt.Sprintf("That cannot be the PIN: %v. It was not sent, please try again.", why))
	}
}

// judge says why what was typed for a PIN is not handed out.
func (p *Pending) judge(ctx context.Context, typed secret.Secret) error {
	check := p.asker.o.IsPassphrase
	switch {
	case typed.Len() == 0 && p.instead():
		return skipped{"Enter was pressed for the " + p.asker.o.Instead()}
	case typed.Len() == 0 && !p.q.New && p.asker.o.Instead != nil:
		return skipped{"no PIN was typed"}
	case typed.Len() == 0 && !p.q.New:
		return errors.New("it is empty")
	case typed.Len() > 0 && check != nil && check(ctx, typed):
		return skipped{"the passphrase was typed for the PIN"}
	case ctx.Err() != nil:
		return cause(ctx)
	case p.q.Check != nil:
		return p.q.Check(typed)
	}
	return nil
}

// skipped is tokens.ErrSkipped and tokens.ErrCancelled.
type skipped struct{ why string }

func (s skipped) Error() string { return s.why }

func (s skipped) Is(target error) bool {
	return target == tokens.ErrSkipped || target == tokens.ErrCancelled
}

// typed reports whether the answer came from a person, or a program in place of
// one, just now.
func (a Answer) typed() bool {
	return len(a.Secrets) > 0 && slices.Contains([]Source{FromConsole, FromAgent, FromPlymouth}, a.Source)
}
