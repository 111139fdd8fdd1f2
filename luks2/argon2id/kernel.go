package argon2id

import "math/bits"

// kernel is an implementation of the compression function G over many blocks.
type kernel struct {
	name string
	fill func(*chunk)
}

// choose is the fastest kernel unless p says otherwise.
func (p *Params) choose() kernel {
	list := kernels()
	switch {
	case p.kernel.fill != nil:
		return p.kernel
	case p.plain:
		return list[0]
	}
	return list[len(list)-1]
}

// fillPortable is for CPUs that no assembly is for. It sets each block of the chunk to itself xor G of the block before
// and the reference block: the rule for all passes but the first, and there the
// memory is zero.
func fillPortable(c *chunk) {
	prev, same := c.prev, c.same
	for i := range c.n {
		word := c.memory[prev][0]
		if c.words != nil {
			word = c.words[i]
		}
		ref := c.reference(word, same)
		out := c.out + i
		compress(&c.memory[out], &c.memory[prev], &c.memory[ref], c.state)
		prev, same = out, same+1
	}
}

// reference maps J_1 and J_2 to a block (RFC 9106 §3.4.2). The sizes are below
// 2^32, so that nothing overflows.
func (c *chunk) reference(word uint64, same int) int {
	lane := int(uint32(word>>32) % uint32(c.lanes)) // an int may have 32 bits and a sign
	area := c.other
	if lane == c.own {
		area = same
	}
	x := uint64(uint32(word))
	x = x * x >> 32
	y := uint64(area) * x >> 32
	z := c.start + area - 1 - int(y)
	if z >= c.laneLen {
		z -= c.laneLen
	}
	return c.base + lane*c.laneLen + z
}

// compress sets out to itself xor G(x, y) (RFC 9106 §3.5).
func compress(out, x, y, z *block) {
	for i := range z {
		r := x[i] ^ y[i]
		z[i] = r
		out[i] ^= r
	}
	for row := 0; row < blockWords; row += 16 {
		permute(z, row, 2)
	}
	for column := 0; column < 16; column += 2 {
		permute(z, column, 16)
	}
	for i, w := range z {
		out[i] ^= w
	}
}

// permute is P (RFC 9106 §3.6) over the eight pairs of words that begin at the
// given distances.
func permute(z *block, first, distance int) {
	p := func(i int) *[2]uint64 { return (*[2]uint64)(z[(first+i*distance)&(blockWords-1):]) }
	p0, p1, p2, p3, p4, p5, p6, p7 := p(0), p(1), p(2), p(3), p(4), p(5), p(6), p(7)
	a0, a1, a2, a3 := p0[0], p0[1], p1[0], p1[1]
	b0, b1, b2, b3 := p2[0], p2[1], p3[0], p3[1]
	c0, c1, c2, c3 := p4[0], p4[1], p5[0], p5[1]
	d0, d1, d2, d3 := p6[0], p6[1], p7[0], p7[1]

	a0, b0, c0, d0 = mix(a0, b0, c0, d0)
	a1, b1, c1, d1 = mix(a1, b1, c1, d1)
	a2, b2, c2, d2 = mix(a2, b2, c2, d2)
	a3, b3, c3, d3 = mix(a3, b3, c3, d3)

	a0, b1, c2, d3 = mix(a0, b1, c2, d3)
	a1, b2, c3, d0 = mix(a1, b2, c3, d0)
	a2, b3, c0, d1 = mix(a2, b3, c0, d1)
	a3, b0, c1, d2 = mix(a3, b0, c1, d2)

	*p0, *p1 = [2]uint64{a0, a1}, [2]uint64{a2, a3}
	*p2, *p3 = [2]uint64{b0, b1}, [2]uint64{b2, b3}
	*p4, *p5 = [2]uint64{c0, c1}, [2]uint64{c2, c3}
	*p6, *p7 = [2]uint64{d0, d1}, [2]uint64{d2, d3}
}

// mix is GB of RFC 9106 §3.6.
func mix(a, b, c, d uint64) (uint64, uint64, uint64, uint64) {
	a, d = halfMix(a, b, d, 32)
	c, b = halfMix(c, d, b, 24)
	a, d = halfMix(a, b, d, 16)
	c, b = halfMix(c, d, b, 63)
	return a, b, c, d
}

func halfMix(a, b, d uint64, right int) (uint64, uint64) {
	a += b + 2*uint64(uint32(a))*uint64(uint32(b))
	return a, bits.RotateLeft64(d^a, -right)
}
