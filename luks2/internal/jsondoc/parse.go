package jsondoc

import "bytes"

// Parse reads a text that is one JSON value and nothing else. The document keeps
// the slice, which must not be changed afterwards.
//
// The grammar is RFC 8259 with two additions that occur in headers written by
// json-c: bytes of 0x80 and above need not be UTF-8, and names may repeat.
// Unlike json-c there are no comments, single quotes, NaN or trailing commas.
func Parse(text []byte) (*Doc, error) {
	d, n, err := ParsePrefix(text)
	if err != nil {
		return nil, err
	}
	if n != len(text) {
		return nil, &SyntaxError{n, "data after the JSON value"}
	}
	return d, nil
}

// ParsePrefix reads the JSON value at the start of area, with white space around
// it, and returns the length of the text. The document keeps that part of the slice.
func ParsePrefix(area []byte) (*Doc, int, error) {
	if len(area) > MaxSize {
		return nil, 0, &SyntaxError{MaxSize, "text is larger than 4 MiB"}
	}
	p := parser{text: area, nodes: make([]node, 0, min(len(area)/8+1, 256))}
	p.space()
	if err := p.value(node{}, 0); err != nil {
		return nil, 0, err
	}
	p.space()
	n := p.pos
	return &Doc{text: area[:n:n], nodes: p.nodes}, n, nil
}

type parser struct {
	text  []byte
	pos   int
	nodes []node
}

func (p *parser) fail(reason string) error { return &SyntaxError{p.pos, reason} }

// peek is the next byte, or 0 at the end: NUL starts no token.
func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// value parses the value at the position into the node n, which has the place of
// its name already.
func (p *parser) value(n node, depth int) error {
	if depth >= MaxDepth {
		return p.fail("nested deeper than 32 levels")
	}
	if len(p.nodes) == MaxValues {
		return p.fail("more than 65536 values")
	}
	at := len(p.nodes)
	n.start = int32(p.pos)
	p.nodes = append(p.nodes, n)
	kind, err := p.token(depth)
	p.nodes[at].kind, p.nodes[at].end = kind, int32(p.pos)
	return err
}

func (p *parser) token(depth int) (Kind, error) {
	switch c := p.peek(); {
	case c == '{':
		return Object, p.list(len(p.nodes)-1, '}', depth)
	case c == '[':
		return Array, p.list(len(p.nodes)-1, ']', depth)
	case c == '"':
		_, err := p.quoted()
		return String, err
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	case p.literal("true"), p.literal("false"):
		return Bool, nil
	case p.literal("null"):
		return Null, nil
	case p.pos >= len(p.text):
		return Missing, p.fail("text ends where a value is expected")
	}
	return Missing, p.fail("no JSON value starts here")
}

func (p *parser) literal(word string) bool {
	if !bytes.HasPrefix(p.text[p.pos:], []byte(word)) {
		return false
	}
	p.pos += len(word)
	return true
}

// list parses what stands between the brackets of the node parent.
func (p *parser) list(parent int, closing byte, depth int) error {
	p.pos++
	p.space()
	if p.peek() == closing {
		p.pos++
		return nil
	}
	for last := 0; ; {
		this := len(p.nodes)
		if err := p.entry(closing == '}', depth); err != nil {
			return err
		}
		if last == 0 {
			p.nodes[parent].child = int32(this)
		} else {
			p.nodes[last].next = int32(this)
		}
		last = this
		p.space()
		switch p.peek() {
		case closing:
			p.pos++
			return nil
		case ',':
			p.pos++
			p.space()
		default:
			return p.fail("expected a comma or " + string(closing))
		}
	}
}

// entry parses an element or, with its name, a member.
func (p *parser) entry(named bool, depth int) error {
	var n node
	if named {
		if p.peek() != '"' {
			return p.fail("expected a member name in quotes")
		}
		n.keyStart = int32(p.pos)
		escaped, err := p.quoted()
		if err != nil {
			return err
		}
		n.keyEnd, n.escaped = int32(p.pos), escaped
		// Readers in C see such a name cut, so that one text has two meanings.
		if escaped && bytes.IndexByte([]byte(unquote(p.text[n.keyStart:n.keyEnd])), 0) >= 0 {
			return &SyntaxError{int(n.keyStart), "NUL character in a member name"}
		}
		p.space()
		if p.peek() != ':' {
			return p.fail("expected a colon")
		}
		p.pos++
		p.space()
	}
	return p.value(n, depth+1)
}

// quoted passes over a string and reports whether it has a backslash.
func (p *parser) quoted() (escaped bool, err error) {
	for p.pos++; p.pos < len(p.text); p.pos++ {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return escaped, nil
		case c < 0x20:
			return escaped, p.fail("control character in a string")
		case c == '\\':
			escaped = true
			p.pos++
			if !p.escape() {
				return escaped, p.fail("unknown escape in a string")
			}
		}
	}
	return escaped, p.fail("string without an end")
}

// escape passes over what follows a backslash, up to its last byte.
func (p *parser) escape() bool {
	switch p.peek() {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
	default:
		return false
	}
	if len(p.text)-p.pos < 5 {
		return false
	}
	for _, c := range p.text[p.pos+1 : p.pos+5] {
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F') {
			return false
		}
	}
	p.pos += 4
	return true
}

func (p *parser) digits() bool {
	from := p.pos
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.pos++
	}
	return p.pos > from
}

func (p *parser) number() (Kind, error) {
	kind := Int
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++
	} else if !p.digits() {
		return kind, p.fail("number without digits")
	}
	if p.peek() == '.' {
		kind = Real
		p.pos++
		if !p.digits() {
			return kind, p.fail("number without digits after the point")
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		kind = Real
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return kind, p.fail("number without digits in the exponent")
		}
	}
	return kind, nil
}
