package draw

import (
	"fmt"
	"strconv"
	"strings"

	"luksmith/tokens/recovery"
)

// canvas is what the page is drawn on. Places are in mm from the top left corner;
// y of a text is its base line. Shades run from 0, black, to 255.
type canvas interface {
	text(s style, shade uint8, x, y float64, text string)
	// group draws group n of the key.
	group(s style, n int, x, y float64)
	// code draws the QR code without its quiet zone.
	code(x, y, size float64)
	fill(shade uint8, x, y, width, height float64)
}

const (
	margin    = 20.0 // left and right
	topMargin = 16.0
	// footerHeight is what the last line takes from the bottom of the page.
	footerHeight = 16.0
	// sections is how often a gap divides the page, maxGap how wide it gets.
	sections = 3
	maxGap   = 7.0

	black = 0
	grey  = 110
	pale  = 238
)

var (
	titleStyle   = style{bold, 26}
	headStyle    = style{bold, 11.5}
	textStyle    = style{regular, 10}
	smallStyle   = style{regular, 8.5}
	factStyle    = style{mono, 10}
	commandStyle = style{mono, 9}
	groupStyle   = style{monoBold, 19}
	lineStyle    = style{mono, 9}
)

// layout places everything from top to bottom.
type layout struct {
	canvas
	*fonts
	page  *page
	width float64 // between the margins
	y     float64 // where the next thing begins
	gap   float64 // before each section
}

// draw draws the page. The space that is left goes between the sections.
func (p *page) draw(c canvas, f *fonts) {
	width, height := p.size()
	l := layout{canvas: noCanvas{}, fonts: f, page: p, width: width - 2*margin}
	used := l.content()
	l.canvas = c
	l.gap = min(maxGap, (height-footerHeight-used)/sections)
	l.content()
	l.text(smallStyle, grey, margin, height-footerHeight+4, footer)
}

// noCanvas is for measuring.
type noCanvas struct{}

func (noCanvas) text(style, uint8, float64, float64, string)    {}
func (noCanvas) group(style, int, float64, float64)             {}
func (noCanvas) code(float64, float64, float64)                 {}
func (noCanvas) fill(uint8, float64, float64, float64, float64) {}

// content draws all but the last line and returns where it ends.
func (l *layout) content() float64 {
	p := l.page
	l.y = topMargin
	l.heading()
	l.key()
	l.facts()
	l.section(bootTitle, bootText)
	l.section(rescueTitle, rescueText)
	l.commands(p.openCommand(), p.mountCommand())
	l.paragraph(smallStyle, rescueMore)
	l.y += 1.5
	l.paragraph(textStyle, checkText)
	l.commands(p.checkCommand())
	l.section(afterTitle, afterText)
	l.commands(p.replaceCommand())
	return l.y
}

func (l *layout) heading() {
	l.text(titleStyle, black, margin, l.y+7, title)
	l.y += 11
	l.fill(black, margin, l.y, l.width, 0.6)
	l.y += 4
	l.paragraph(textStyle, intro)
	l.y += 3
}

// key draws the groups in two rows, numbered, with the dashes that are typed.
func (l *layout) key() {
	const rowHeight, perRow = 14.0, recovery.Groups / 2
	l.fill(pale, margin, l.y, l.width, 2*rowHeight+4)
	column := l.fonts.width(groupStyle, strings.Repeat("m", recovery.GroupLength))
	step := (l.width - 8) / perRow
	for n := 1; n <= recovery.Groups; n++ {
		x := margin + 4 + float64((n-1)%perRow)*step
		y := l.y + 2 + float64((n-1)/perRow)*rowHeight
		l.text(smallStyle, grey, x, y+3.8, strconv.Itoa(n))
		l.group(groupStyle, n, x, y+10.8)
		if n < recovery.Groups {
			l.text(groupStyle, black, x+column, y+10.8, "-")
		}
	}
	l.y += 2*rowHeight + 4 + 4.5
	l.oneLine()
	letters := strings.Join(strings.Split(recovery.Alphabet, ""), " ")
	l.text(smallStyle, grey, margin, l.y, fmt.Sprintf(spelling, letters))
	l.y += 6
}

// oneLine draws the key as it is typed, in one piece, so that it can be copied from the
// PDF: between the large groups stand their numbers.
func (l *layout) oneLine() {
	x := margin
	letter := l.fonts.width(lineStyle, "m")
	for n := 1; n <= recovery.Groups; n++ {
		l.group(lineStyle, n, x, l.y)
		x += recovery.GroupLength * letter
		if n < recovery.Groups {
			l.text(lineStyle, black, x, l.y, "-")
			x += letter
		}
	}
	l.y += 4.5
}

// facts draws the QR code and, beside it, what it belongs to.
func (l *layout) facts() {
	const size, labelWidth, line = 44.0, 22.0, 6.6
	top := l.y
	l.code(margin+2, top, size)
	left := margin + size + 14
	width := margin + l.width - left - labelWidth
	y := top + 4
	for _, fact := range l.page.facts() {
		l.text(textStyle, grey, left, y, fact[0])
		l.text(factStyle, black, left+labelWidth, y, l.fit(factStyle, fact[1], width))
		y += line
	}
	l.y = max(top+size, y-line+2) + 3
}

// facts are name and value of what is known of the volume.
func (p *page) facts() [][2]string {
	slot := strconv.Itoa(p.Keyslot)
	if p.Name != "" {
		slot = fmt.Sprintf("%d, %s", p.Keyslot, p.Name)
	}
	list := [][2]string{{"Volume", p.UUID}}
	for _, optional := range [][2]string{{"Label", p.Label}, {"Device", p.Device}, {"Header", p.Header}, {"Host", p.Host}} {
		if optional[1] != "" {
			list = append(list, optional)
		}
	}
	return append(list, [2]string{"Keyslot", slot}, [2]string{"Enrolled", p.Created.UTC().Format("2006-01-02 15:04 UTC")})
}

func (l *layout) section(head, text string) {
	l.y += l.gap
	l.text(headStyle, black, margin, l.y+3, head)
	l.y += 6
	l.paragraph(textStyle, text)
}

// leading is the distance of lines for a size of type.
func (s style) leading() float64 { return s.points * mmPerPoint * 1.35 }

func (l *layout) paragraph(s style, text string) {
	for _, line := range l.wrap(s, text, l.width) {
		l.y += s.leading()
		l.text(s, black, margin, l.y-s.leading()*0.27, line)
	}
	l.y += 0.8
}

// commands draws lines for a shell in a panel.
func (l *layout) commands(list ...[]string) {
	var lines []string
	for _, words := range list {
		lines = append(lines, l.breakCommand(words)...)
	}
	const padding, line = 2.0, 4.6
	height := 2*padding + line*float64(len(lines)) - 0.6
	l.fill(pale, margin, l.y+0.6, l.width, height)
	for i, text := range lines {
		l.text(commandStyle, black, margin+3, l.y+0.6+padding+3+float64(i)*line, text)
	}
	l.y += height + 2.2
}

// breakCommand joins words to lines that end in a backslash where a shell needs it.
func (l *layout) breakCommand(words []string) []string {
	var lines []string
	line := words[0]
	for _, word := range words[1:] {
		if l.fonts.width(commandStyle, line+" "+word+` \`) > l.width-6 {
			lines = append(lines, line+` \`)
			line = "    " + word
			continue
		}
		line += " " + word
	}
	return append(lines, line)
}
