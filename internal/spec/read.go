package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"unicode/utf16"

	"go.yaml.in/yaml/v3"

	"luksmith/tokens"
)

// maxSpec bounds what is read.
const maxSpec = 1 << 20

// Read reads a spec; "-" is the standard input. types are the token types that it may
// name. Errors are an [Error] or about the file.
func Read(path string, types tokens.Set) (*Spec, error) {
	b, err := load(path)
	if err != nil {
		return nil, err
	}
	if path == "-" {
		path = "standard input"
	}
	return Parse(path, b, types)
}

// load reads the file, which decides who can open volumes: nobody else may have
// written it.
func load(path string) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
			return nil, err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o002 != 0 {
			return nil, Place{Name: path}.Errorf("everybody may write to it (mode %04o): a spec decides what opens a volume", info.Mode().Perm())
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSpec+1))
	if err == nil && len(b) > maxSpec {
		err = Place{Name: path}.Errorf("it has more than %d bytes", maxSpec)
	}
	return b, err
}

// Parse reads a spec from memory. name is for messages.
func Parse(name string, b []byte, types tokens.Set) (*Spec, error) {
	file := Place{Name: name}
	if json.Valid(b) {
		b = yamlEscapes(b)
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var doc, more yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, file.Errorf("it is empty")
	case err != nil:
		return nil, syntaxError(file, err)
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, Place{Name: name, Line: more.Line}.Errorf("a second document begins; a spec is one")
	}
	s := &Spec{Unlisted: Keep}
	root := node{doc.Content[0], Place{Name: name, Line: doc.Content[0].Line}}
	if err := s.shape(types).read(root); err != nil {
		return nil, err
	}
	return s, s.check()
}

// yamlEscapes writes those escapes of a JSON text as YAML has them that the library
// does not know: \/, and two of UTF-16 for one character.
func yamlEscapes(b []byte) []byte {
	const hex = `[[:xdigit:]]{2}`
	escape := regexp.MustCompile(`(?s)\\(?:u[dD][89aAbB]` + hex + `\\u[dD][c-fC-F]` + hex + `|.)`)
	return escape.ReplaceAllFunc(b, func(e []byte) []byte {
		switch {
		case e[1] == '/':
			return []byte("/")
		case len(e) == len(`\ud83d\ude00`):
			high, _ := strconv.ParseUint(string(e[2:6]), 16, 16)
			low, _ := strconv.ParseUint(string(e[8:]), 16, 16)
			return fmt.Appendf(nil, `\U%08x`, utf16.DecodeRune(rune(high), rune(low)))
		}
		return e
	})
}

// syntaxError is a text that is not YAML. The library says where at the beginning:
// "yaml: line 7: ", or "yaml: unmarshal errors:" and then that.
func syntaxError(at Place, err error) error {
	text, ok := strings.CutPrefix(err.Error(), "yaml: ")
	if !ok {
		return at.Errorf("this is neither YAML nor JSON: %w", err)
	}
	text = strings.TrimSpace(strings.TrimPrefix(text, "unmarshal errors:"))
	if line, rest, ok := strings.Cut(strings.TrimPrefix(text, "line "), ": "); ok {
		if n, err := strconv.Atoi(line); err == nil {
			at.Line, text = n, rest
		}
	}
	return at.Errorf("this is neither YAML nor JSON: %s", text)
}

// check compares parts with each other.
func (s *Spec) check() error {
	labels := map[string]int{}
	for _, k := range s.Keyslots {
		if line, twice := labels[k.Label]; twice {
			return k.Errorf("the label %q is there twice, first in line %d", k.Label, line)
		}
		labels[k.Label] = k.Line
	}
	for _, a := range s.Absent {
		if line, listed := labels[a.Label]; listed && a.Label != "" {
			return a.Errorf("the label %q is wanted in line %d", a.Label, line)
		}
	}
	if len(s.Keyslots) == 0 && (len(s.Absent) > 0 || s.Unlisted == Wipe) {
		return s.Errorf("keyslots are to be wiped and none is wanted: list at least one that stays")
	}
	return nil
}

// absolute takes the path of a file that is read or written with nobody there.
func absolute(dst *string) shape {
	return scalar{set: func(at Place, value string) error {
		if !filepath.IsAbs(value) {
			return at.Errorf("%.60q is not an absolute path", value)
		}
		*dst = value
		return nil
	}}
}

// absoluteText is absolute with its place.
func absoluteText(dst *Text) shape {
	return scalar{set: func(at Place, value string) error {
		dst.Place = at
		return absolute(&dst.Value).(scalar).set(at, value)
	}}
}

// label takes what may become the label of a keyslot.
func label(dst *string, most int) shape {
	return scalar{set: func(at Place, value string) error {
		if err := tokens.CheckLabel(value); err != nil {
			return at.Wrap(err)
		}
		if len(value) > most {
			return at.Errorf("the label has %d bytes, at most %d are allowed", len(value), most)
		}
		*dst = value
		return nil
	}}
}

// version takes the one that is known.
type version struct{}

func (version) read(n node) error {
	if n.Value != strconv.Itoa(Version) {
		return n.Errorf("version %.20q is not known, only %d", n.Value, Version)
	}
	return nil
}

func (version) schema() map[string]any { return map[string]any{"const": Version} }

// credentialName refuses what would lead out of the folder.
func credentialName(value string) error {
	if value == "" || strings.ContainsRune(value, '/') || value == "." || value == ".." {
		return fmt.Errorf("%.60q is not the name of a credential", value)
	}
	return nil
}
