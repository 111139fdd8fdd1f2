package crypttab

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrAmbiguous says that several lines are about the volume to be changed.
var ErrAmbiguous = errors.New("more than one line is about the volume")

// Change says what the line of one volume is to have. Everything else of the file stays
// as it is, byte for byte: comments, order, spacing, line ends.
type Change struct {
	// Match reports whether a line is about the volume: see [Entry.IsAbout].
	Match func(*Entry) bool
	// Name and Device are the first two fields of a new line, for a file that has
	// none: a mapping name, and text such as UUID=….
	Name, Device string
	// Key is the third field, such as the path of a key file; "" leaves what is there.
	Key string
	// Options are words such as "tpm2-device=auto", unescaped. One takes the place of
	// the word there with the same option, or with the opposite one (nofail and fail), or
	// is joined to it ([Option.Joins]);
	// new ones follow what is there. A path or URI may hold commas and spaces.
	Options []string
	// Grammar knows the aliases of options and checks the result; [Table] when nil.
	Grammar Grammar
}

// Changed is what came of a [Change].
type Changed struct {
	File string `json:"file,omitempty"`
	Line int    `json:"line"`          // number of the line
	Old  string `json:"old,omitempty"` // the line as it was, "" for a new one
	New  string `json:"new"`           // as it is now; equal to Old when nothing changed
	Copy string `json:"copy,omitempty"`
}

// Edit returns the text of a crypttab with the change made. Errors are a [SyntaxError]:
// a line that cannot be changed without guessing, options that the result would not be
// attached with, a text that would not be read again.
func (c *Change) Edit(text []byte, path string) ([]byte, *Changed, error) {
	fresh, changed, err := c.edit(text, path)
	if err != nil {
		return nil, nil, err
	}
	// A line more can be what makes a file of stray bytes look like another encoding.
	if _, err := Parse(bytes.NewReader(fresh), path); err != nil {
		return nil, nil, err
	}
	return fresh, changed, nil
}

func (c *Change) edit(text []byte, path string) ([]byte, *Changed, error) {
	f, err := Parse(bytes.NewReader(text), path)
	if err != nil {
		return nil, nil, err
	}
	lines := splitLines(text)
	e, err := c.find(f)
	if err != nil {
		return nil, nil, err
	}
	if e == nil {
		return c.appendLine(text, lines, path)
	}
	old := lines[e.Line-1]
	fresh, err := c.merge(e, old.content)
	if err != nil {
		return nil, nil, err
	}
	lines[e.Line-1].content = fresh
	return joinLines(lines), &Changed{File: path, Line: e.Line, Old: old.content, New: fresh}, nil
}

// find returns the line about the volume, nil if there is none.
func (c *Change) find(f *File) (found *Entry, err error) {
	for i := range f.Entries {
		e := &f.Entries[i]
		switch {
		case !c.Match(e):
		case found != nil:
			return nil, &SyntaxError{File: f.Path, Line: e.Line, Field: "line", Err: fmt.Errorf("%w: line %d is, too", ErrAmbiguous, found.Line)}
		default:
			found = e
		}
	}
	return found, nil
}

// textLine is one line with what ends it.
type textLine struct{ content, end string }

func splitLines(text []byte) (list []textLine) {
	for len(text) > 0 {
		content, rest := cutLine(text)
		end := text[len(content) : len(text)-len(rest)]
		list = append(list, textLine{string(content), string(end)})
		text = rest
	}
	return list
}

func joinLines(list []textLine) []byte {
	var b bytes.Buffer
	for _, l := range list {
		b.WriteString(l.content + l.end)
	}
	return b.Bytes()
}

// appendLine adds the line of a volume that has none, ended as the others are.
func (c *Change) appendLine(text []byte, lines []textLine, path string) ([]byte, *Changed, error) {
	end := "\n"
	if len(lines) > 0 && lines[0].end == "\r\n" {
		end = lines[0].end
	}
	out := slices.Clone(text)
	if n := len(lines); n > 0 && lines[n-1].end == "" {
		out = append(out, end...)
	}
	e := &Entry{File: path, Line: len(lines) + 1}
	if err := CheckName(c.Name); err != nil {
		return nil, nil, e.Errorf("name", "%w", err)
	}
	fields := []string{Escape(c.Name), Escape(c.Device), "none", ""}
	if c.Key != "" {
		fields[2] = Escape(c.Key)
	}
	words := c.grammar().merge(nil, c.Options)
	if fields[3] = rawOptions(words); len(words) == 0 {
		fields = fields[:3]
	}
	fresh := strings.Join(fields, " ")
	if err := c.check(e, fresh, words); err != nil {
		return nil, nil, err
	}
	return append(out, fresh+end...), &Changed{File: path, Line: e.Line, New: fresh}, nil
}

func (c *Change) grammar() Grammar {
	if c.Grammar == nil {
		return Table
	}
	return c.Grammar
}

// merge changes one line.
func (c *Change) merge(e *Entry, line string) (string, error) {
	if e.Key.Path != "" && !strings.HasPrefix(e.Key.Path, "/") && c.Key == "" {
		return "", e.Errorf("key", "%q is neither a path nor none: correct the line first", e.Key)
	}
	if len(c.Options) == 0 && c.Key == "" {
		return line, nil
	}
	fields, gaps := lineFields(line)
	var words []rawWord
	var err error
	if e.Options != "" {
		if words, err = rawWords(fields[3]); err != nil {
			return "", e.Errorf("options", "%w", err)
		}
	}
	for len(fields) < 4 {
		gaps = slices.Insert(gaps, len(fields), gaps[1])
		fields = append(fields, "none")
	}
	if c.Key != "" {
		fields[2] = Escape(c.Key)
	}
	words = c.grammar().merge(words, c.Options)
	if len(words) > 0 {
		fields[3] = rawOptions(words)
	}
	var b strings.Builder
	for i, f := range fields {
		b.WriteString(gaps[i] + f)
	}
	fresh := b.String() + gaps[len(fields)]
	return fresh, c.check(e, fresh, words)
}

// lineFields cuts a line into its fields and the white space around them: before each
// one and, last, behind all.
func lineFields(line string) (fields, gaps []string) {
	isSpace := func(r rune) bool { return r < 0x80 && strings.ContainsRune(spaces, r) }
	for {
		rest := strings.TrimLeftFunc(line, isSpace)
		gaps = append(gaps, line[:len(line)-len(rest)])
		if rest == "" {
			return fields, gaps
		}
		end := strings.IndexFunc(rest, isSpace)
		if end < 0 {
			end = len(rest)
		}
		fields = append(fields, rest[:end])
		line = rest[end:]
	}
}

// check reads a line that was made and wants to find in it what was meant.
func (c *Change) check(e *Entry, line string, words []rawWord) error {
	f := &File{Path: e.File}
	f.parseLine(e.Line, line)
	if len(f.Entries) != 1 {
		return e.Errorf("line", "%q could not be read back", line)
	}
	o, _, err := c.grammar().ParseOptions(f.Entries[0].Options)
	var syntax *SyntaxError
	if errors.As(err, &syntax) {
		return e.Errorf(syntax.Field, "%w", syntax.Err)
	}
	for _, w := range words {
		if err := c.checkWord(w, o); err != nil {
			return e.Errorf("options: "+splitWord(w.text).String(), "%w", err)
		}
	}
	return nil
}

// checkWord wants a new word to be known, and to have come through.
func (c *Change) checkWord(w rawWord, o *Options) error {
	word := splitWord(w.text)
	switch {
	case !w.fresh || slices.Contains(o.Words, word):
		return nil
	case c.grammar().find(word) == nil:
		warning, err := c.grammar().unknown(word)
		return errors.Join(warning, err)
	}
	return ErrBadValue
}

// rawWord is an option as it stands in the file and as it is meant.
type rawWord struct {
	raw, text string
	fresh     bool // asked for
}

func rawOptions(words []rawWord) string {
	var list []string
	for _, w := range words {
		list = append(list, w.raw)
	}
	return strings.Join(list, ",")
}

// rawWords splits the fourth field as it stands in the file. A comma that is written
// as an escape would be missed; such a field is an error.
func rawWords(field string) (words []rawWord, err error) {
	start := 0
	for i := 0; i <= len(field); i++ {
		switch {
		case i < len(field) && field[i] == '\\':
			i++
		case i >= len(field) || field[i] == ',':
			raw := field[start:min(i, len(field))]
			text, _, more, err := nextWord(unescape(raw))
			if err != nil {
				return nil, err
			}
			if more {
				return nil, fmt.Errorf("%w: %q holds a comma that is written as an escape", ErrBadValue, raw)
			}
			words = append(words, rawWord{raw: raw, text: text})
			start = i + 1
		}
	}
	return words, nil
}

// escapeWord writes an option so that the two decodings of the fourth field, of C escapes
// and of commas, give it back.
func escapeWord(text string) string {
	var out strings.Builder
	for i := range len(text) {
		switch b := text[i]; {
		case b == ',':
			out.WriteString(`\,`)
		case b == '\\':
			out.WriteString(`\\\\`)
		case b <= ' ' || b == 0x7f || strings.IndexByte(`"'`, b) >= 0:
			fmt.Fprintf(&out, `\x%02x`, b)
		default:
			out.WriteByte(b)
		}
	}
	return out.String()
}

// merge puts options into a list of words.
func (g Grammar) merge(words []rawWord, options []string) []rawWord {
	for _, option := range options {
		at := slices.IndexFunc(words, func(old rawWord) bool { return g.same(old.text, option) })
		if at >= 0 {
			option = g.joined(words[at].text, option)
		}
		w := rawWord{escapeWord(option), option, true}
		switch {
		case at < 0:
			if n := len(words); n > 0 && words[n-1].text == "" { // "luks,"
				words = words[:n-1]
			}
			words = append(words, w)
			continue
		case words[at].text != option:
			words[at] = w
		default:
			words[at].fresh = true // to be checked like a new one
		}
		rest := slices.DeleteFunc(slices.Clone(words[at+1:]), func(old rawWord) bool { return g.same(old.text, option) })
		words = append(words[:at+1], rest...)
	}
	return words
}

// joined is an option after the values of the same one that stands there, if it takes
// several.
func (g Grammar) joined(old, option string) string {
	is := splitWord(option)
	row := g.find(is)
	name, was, _ := strings.Cut(old, "=")
	if row == nil || row.Joins == 0 || was == "" {
		return option
	}
	values := strings.Split(was, string(row.Joins))
	for value := range strings.SplitSeq(is.Value, string(row.Joins)) {
		if !slices.Contains(values, value) {
			values = append(values, value)
		}
	}
	return name + "=" + strings.Join(values, string(row.Joins))
}

// same reports whether two words are about the same thing.
func (g Grammar) same(a, b string) bool { return g.subject(a) == g.subject(b) }

func (g Grammar) subject(text string) string {
	name := splitWord(text).Name
	if i := slices.IndexFunc(g, func(row Option) bool { return row.isNamed(name) }); i >= 0 {
		name = g[i].Name
	}
	if positive, ok := strings.CutPrefix(name, "no"); ok && (positive == "auto" || positive == "fail") { // the last one counts
		return positive
	}
	return name
}

// SplitOptions takes a list of options apart where attach does, at commas that no
// backslash stands before.
func SplitOptions(text string) (list []string) {
	for more := text != ""; more; {
		word, rest, again, err := nextWord(text)
		if err != nil {
			return append(list, text)
		}
		list, text, more = append(list, word), rest, again
	}
	return list
}
