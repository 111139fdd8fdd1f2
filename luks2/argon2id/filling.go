package argon2id

import (
	"context"
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"

	"luksmith/luks2/secret"
)

// slices is SL of RFC 9106 §3.4: lanes wait for each other after each quarter.
const slices = 4

// maxChunk is how many blocks are filled between looks at the context. It is also
// how long the garbage collector may have to wait: a fraction of a millisecond.
const maxChunk = 1024

// filling is one computation.
type filling struct {
	Params
	mix      func(*chunk)
	arena    arena
	memory   []block // the matrix B, lanes one after the other
	laneLen  int     // q of RFC 9106 §3.2
	segment  int     // blocks of a lane in a slice
	reserved bool    // the arena belongs to Params.Memory
	lanes    []lane

	giveBack func() // of tests: looks at the memory before it goes
}

// lane is what the computation of one lane needs besides memory.
type lane struct {
	scratch []block // see the constants
	filled  int     // blocks that were written to
}

// Blocks of lane.scratch.
const (
	zeroBlock   = iota
	inputBlock  // Z of RFC 9106 §3.4.1.2
	halfBlock   // G(0, Z)
	wordsBlock  // G(0, G(0, Z)): pairs of J_1 and J_2
	stateBlock  // of a kernel
	scratchSize // blocks
)

func newFilling(p Params) (*filling, error) {
	segment := p.segment()
	f := &filling{Params: p, mix: p.choose().fill, segment: segment, laneLen: slices * segment}
	n := f.laneLen * p.Lanes
	var err error
	if f.arena, f.reserved = p.Memory.take(p.blocks()); !f.reserved {
		if f.arena, err = newArena(p.blocks(), !p.plain); err != nil {
			return nil, err
		}
	}
	f.lanes = make([]lane, p.Lanes)
	f.memory = f.arena.blocks[:n:n]
	for i := range f.lanes {
		f.lanes[i].scratch = f.arena.blocks[n+i*scratchSize:][:scratchSize:scratchSize]
	}
	return f, nil
}

// segment is the number of blocks of a lane in a slice.
func (p *Params) segment() int { return p.MemoryKiB / (slices * p.Lanes) }

// blocks is how many a computation needs.
func (p *Params) blocks() int { return (slices*p.segment() + scratchSize) * p.Lanes }

// begin makes the first two blocks of each lane (RFC 9106 §3.2 steps 3 and 4).
func (f *filling) begin(passphrase []byte, outLen int) {
	room := secret.New(seedSize + 8 + seedSize + 12 + blockSize)
	defer room.Wipe()
	input, work := room.Bytes()[:seedSize+8], room.Bytes()[seedSize+8:]
	first := work[seedSize+12:]
	f.seed(input[:seedSize], passphrase, outLen)
	for i := range f.lanes {
		binary.LittleEndian.PutUint32(input[seedSize+4:], uint32(i))
		for j := range 2 {
			binary.LittleEndian.PutUint32(input[seedSize:], uint32(j))
			longHash(first, input, work[:seedSize+12])
			f.memory[i*f.laneLen+j].load(first)
		}
		f.lanes[i].filled = 2
	}
}

func (b *block) load(src []byte) {
	for i := range b {
		b[i] = binary.LittleEndian.Uint64(src[8*i:])
	}
}

// fill makes all other blocks (RFC 9106 §3.2 steps 5 and 6).
func (f *filling) fill(ctx context.Context) error {
	for pass := range f.Time {
		for slice := range slices {
			f.eachLane(func(lane int) { f.fillSegment(ctx, position{pass, slice, lane}) })
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// eachLane calls do for every lane, for as many at once as there are CPUs.
func (f *filling) eachLane(do func(lane int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(len(f.lanes), runtime.GOMAXPROCS(0)) {
		all.Go(func() {
			for lane := int(next.Add(1)) - 1; lane < len(f.lanes); lane = int(next.Add(1)) - 1 {
				secret.Do(func() { do(lane) })
			}
		})
	}
	all.Wait()
}

// position is that of a segment.
type position struct{ pass, slice, lane int }

// chunk are blocks of one segment, one after the other, for a kernel to fill. All
// positions are indices of memory or counts of blocks.
type chunk struct {
	memory []block
	out    int // first block to fill
	prev   int // block before it
	n      int // at least 1

	// words are the pairs of J_1 and J_2 for each block, if they do not depend on
	// the passphrase (RFC 9106 §3.4.1.2). Else each is in the block before
	// (§3.4.1.1).
	words []uint64

	// What reference needs (§3.4.2), for the first block.
	base    int // block 0 of lane 0
	lanes   int // to choose from
	own     int // this lane
	laneLen int
	start   int // where in a lane the blocks begin that may be referred to
	same    int // how many there are in this lane; one more for each further block
	other   int // how many in each other lane

	state *block // room for intermediate values
}

// fillSegment returns early when ctx ends.
func (f *filling) fillSegment(ctx context.Context, at position) {
	l := &f.lanes[at.lane]
	c := f.chunk(at)
	words := f.wordsIndependent(at)
	i := 0
	if at.pass == 0 && at.slice == 0 {
		i = 2 // begin made those
		if words {
			f.nextWords(l, at, 0)
		}
	}
	for i < f.segment {
		f.place(c, at, i)
		if words {
			if i%blockWords == 0 {
				f.nextWords(l, at, i/blockWords)
			}
			c.n = min(c.n, blockWords-i%blockWords)
			c.words = l.scratch[wordsBlock][i%blockWords:][:c.n]
		}
		f.mix(c)
		i += c.n
		l.filled = max(l.filled, at.slice*f.segment+i)
		if ctx.Err() != nil {
			return
		}
	}
}

// chunk is what all chunks of a segment have in common.
func (f *filling) chunk(at position) *chunk {
	c := &chunk{memory: f.memory, lanes: len(f.lanes), own: at.lane, laneLen: f.laneLen, state: &f.lanes[at.lane].scratch[stateBlock]}
	if at.pass == 0 && at.slice == 0 { // no other lane has anything yet
		c.base, c.lanes, c.own = at.lane*f.laneLen, 1, 0
	}
	if at.pass > 0 {
		c.start = (at.slice + 1) % slices * f.segment
	}
	return c
}

// place sets c to begin at block i of the segment and to go on to its end, or to
// maxChunk blocks.
func (f *filling) place(c *chunk, at position, i int) {
	first := at.lane * f.laneLen
	c.out = first + at.slice*f.segment + i
	c.prev = c.out - 1
	if c.out == first {
		c.prev = first + f.laneLen - 1
	}
	finished := (slices - 1) * f.segment // the last three slices, of this pass or the one before
	if at.pass == 0 {
		finished = at.slice * f.segment
	}
	c.same, c.other = finished+i-1, finished
	c.n = min(f.segment-i, maxChunk)
	if i == 0 {
		c.other-- // the last block of each may be the one before, as seen from here
		c.n = 1
	}
}

// wordsIndependent reports whether J_1 and J_2 do not depend on the passphrase.
func (f *filling) wordsIndependent(at position) bool {
	return f.Independent || at.pass == 0 && at.slice < slices/2
}

// nextWords computes the pairs of J_1 and J_2 for blocks 128k to 128k+127 of a
// segment (RFC 9106 §3.4.1.2).
func (f *filling) nextWords(l *lane, at position, k int) {
	s := l.scratch
	s[inputBlock] = block{uint64(at.pass), uint64(at.lane), uint64(at.slice), uint64(len(f.memory)), uint64(f.Time), uint64(f.kind()), uint64(k + 1)}
	s[halfBlock], s[wordsBlock] = block{}, block{}
	// With one block to choose from, reference gives the block at start.
	c := &chunk{memory: s, prev: zeroBlock, n: 1, lanes: 1, laneLen: scratchSize, same: 1, state: &s[stateBlock]}
	c.start, c.out = inputBlock, halfBlock
	f.mix(c)
	c.start, c.out = halfBlock, wordsBlock
	f.mix(c)
}

// finish makes the key (RFC 9106 §3.2 steps 7 and 8).
func (f *filling) finish(out []byte) {
	last := &f.memory[f.laneLen-1]
	for i := 1; i < len(f.lanes); i++ {
		for j, w := range f.memory[(i+1)*f.laneLen-1] {
			last[j] ^= w
		}
	}
	room := secret.New(2*blockSize + 4)
	defer room.Wipe()
	input := room.Bytes()[:0:blockSize]
	for _, w := range last {
		input = binary.LittleEndian.AppendUint64(input, w)
	}
	longHash(out, input, room.Bytes()[blockSize:])
}

// free gives the memory back.
func (f *filling) free() {
	f.wipe()
	if f.giveBack != nil {
		f.giveBack()
	}
	if f.reserved {
		f.Memory.giveBack(f.written())
		return
	}
	f.arena.free()
}

// written is the number of blocks from the first on that are known to be there.
func (f *filling) written() int {
	for i := range f.lanes {
		if f.lanes[i].filled < f.laneLen {
			return i*f.laneLen + f.lanes[i].filled
		}
	}
	return f.blocks()
}

// wipe overwrites what was written: the last blocks alone are enough to find the
// key. What was not written is left alone, since the kernel would have to find
// memory for it.
func (f *filling) wipe() {
	f.eachLane(func(i int) {
		clear(f.memory[i*f.laneLen:][:f.lanes[i].filled])
		clear(f.lanes[i].scratch)
	})
}
