package askpass

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"luksmith/luks2/secret"
)

// maxStatic bounds a PIN file or a credential: lists of passphrases are short.
const maxStatic = 64 << 10

// statics are the sources that ask nobody. Each source is used once: a PIN that
// was wrong for one token is not spent on the next.
type statics struct {
	prefix  string // of credentials: "cryptenroll"
	file    string // --pin-file
	newFile string // --new-pin-file
	env     *Environment
	warn    func(text string)
	mu      sync.Mutex
	used    map[string]bool
	last    map[string]string // by credential: the source that answered last
}

// names are what the sources are called for one question.
type names struct {
	file, variable, credential string
	option                     string // of cryptenroll that names a file
}

// namesOf follows tokens.Prompt.Credential.
func (s *statics) namesOf(q *Question) names {
	if q.Credential == "" {
		return names{}
	}
	n := names{variable: "PASSWORD", credential: q.Credential}
	switch {
	case q.isPIN():
		n = names{file: s.file, variable: "PIN", credential: q.Credential}
	case s.prefix == "cryptsetup":
		n.variable = "" // systemd's helper reads $PIN only
	}
	if q.New {
		n = names{variable: "NEW" + n.variable, credential: "new-" + n.credential}
		if q.isPIN() {
			n.file = s.newFile
		}
	}
	n.credential = s.prefix + "." + n.credential
	if s.prefix == "cryptenroll" {
		n.option = q.option()
	}
	return n
}

// option is that of cryptenroll which names a file with the answer; "" if there is none.
func (q *Question) option() string {
	switch {
	case q.isPIN() && q.New:
		return "--new-pin-file=FILE"
	case q.isPIN():
		return "--pin-file=FILE"
	case q.New:
		return ""
	}
	return "--unlock-key-file=FILE (- is the standard input)"
}

// hint says how to answer without a person.
func (n names) hint() string {
	switch {
	case n.credential == "":
		return ""
	case n.variable == "":
		return fmt.Sprintf("give it as credential %s", n.credential)
	}
	option := n.option
	if option != "" {
		option += ", "
	}
	return fmt.Sprintf("give it by %scredential %s or $%s", option, n.credential, n.variable)
}

// find returns the first source that has an answer; no Secrets if none has. An
// unusable file is an error: the person named it. An unusable credential is one
// only when nobody can be asked instead, else a warning.
func (s *statics) find(ctx context.Context, q *Question, mute bool) (Answer, error) {
	n := s.namesOf(q)
	if q.Unread {
		s.giveBack(n)
	}
	if n.file != "" && s.first(n, "file "+n.file) {
		return s.fromFile(ctx, n.file)
	}
	if s.env != nil && n.variable != "" && s.first(n, "$"+n.variable) {
		if value, set := s.env.values[n.variable]; set {
			return Answer{[]secret.Secret{value.Clone()}, FromEnvironment, n.variable}, nil
		}
	}
	if n.credential == "" || !s.first(n, "credential "+n.credential) {
		return Answer{}, nil
	}
	answer, err := s.fromCredential(ctx, n.credential)
	if err != nil && !mute && ctx.Err() == nil {
		s.warn(fmt.Sprintf("%v; asking instead", err))
		return Answer{}, nil
	}
	return answer, err
}

// first reports whether a source has not been used yet, and marks it.
func (s *statics) first(n names, source string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used[source] {
		return false
	}
	if s.used == nil {
		s.used, s.last = map[string]bool{}, map[string]string{}
	}
	s.used[source] = true
	s.last[n.credential] = source
	return true
}

// giveBack has the source that answered last answer once more: no device looked at
// what it gave.
func (s *statics) giveBack(n names) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.used, s.last[n.credential])
	delete(s.last, n.credential)
}

// fromFile reads --pin-file=. One line end at the end of the file is not part of
// the PIN.
func (s *statics) fromFile(ctx context.Context, path string) (Answer, error) {
	data, err := s.read(ctx, path)
	if err != nil {
		return Answer{}, fmt.Errorf("reading PIN file %s: %w", path, err)
	}
	b := data.Bytes()
	if len(b) > 0 && b[len(b)-1] == '\n' {
		data.Truncate(len(b) - 1)
	}
	if data.Len() == 0 {
		data.Wipe()
		return Answer{}, fmt.Errorf("reading PIN file %s: the file is empty", path)
	}
	return Answer{[]secret.Secret{data}, FromFile, path}, nil
}

// fromCredential reads $CREDENTIALS_DIRECTORY/NAME, a list of passwords divided
// by NUL. As in systemd every byte counts, a line end at the end too.
func (s *statics) fromCredential(ctx context.Context, name string) (Answer, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return Answer{}, nil
	}
	if !filepath.IsAbs(dir) {
		return Answer{}, fmt.Errorf("$CREDENTIALS_DIRECTORY is %q, not an absolute path", dir)
	}
	path := filepath.Join(dir, name)
	data, err := s.read(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return Answer{}, nil
	}
	if err != nil {
		return Answer{}, fmt.Errorf("reading credential %s: %w", path, err)
	}
	defer data.Wipe()
	list := splitList(data.Bytes())
	if len(list) == 0 {
		return Answer{}, fmt.Errorf("reading credential %s: the file is empty", path)
	}
	return Answer{list, FromCredential, name}, nil
}

// read gets a small file or what a pipe gives, straight into locked memory.
func (s *statics) read(ctx context.Context, path string) (secret.Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO without a writer must not hang
	if err != nil {
		return secret.Secret{}, errors.Unwrap(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return secret.Secret{}, err
	}
	switch mode := info.Mode(); {
	case mode.IsDir():
		return secret.Secret{}, errors.New("it is a folder")
	case mode&fs.ModeDevice != 0 && mode&fs.ModeCharDevice == 0:
		return secret.Secret{}, errors.New("it is a block device")
	case mode.IsRegular() && mode.Perm()&0o004 != 0:
		s.warn(fmt.Sprintf("%s is readable by everybody (mode %04o)", path, mode.Perm()))
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	data, err := secret.Read(f, maxStatic)
	switch {
	case ctx.Err() != nil:
		data.Wipe()
		return secret.Secret{}, cause(ctx)
	case errors.Is(err, secret.ErrTooLong):
		return secret.Secret{}, fmt.Errorf("it has more than %d bytes", maxStatic)
	}
	return data, err
}

// isPIN follows tokens.Prompt.Credential: every name that ends in "-pin".
func (q *Question) isPIN() bool { return strings.HasSuffix(q.Credential, "-pin") }
