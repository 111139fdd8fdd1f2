//go:build !purego

#include "kernel_amd64.h"

// The block stays in Z0 to Z15 from one to the next, 8 words each: row r of
// RFC 9106 §3.5, eight pairs of words, is in Z(2r) and Z(2r+1).

// HALFMIX is half of GB (RFC 9106 §3.6) on two vectors of words at once.
#define HALFMIX(a0, b0, d0, a1, b1, d1, right, t0, t1) \
	VPMULUDQ a0, b0, t0; \
	VPMULUDQ a1, b1, t1; \
	VPADDQ   b0, a0, a0; \
	VPADDQ   b1, a1, a1; \
	VPADDQ   t0, t0, t0; \
	VPADDQ   t1, t1, t1; \
	VPADDQ   t0, a0, a0; \
	VPADDQ   t1, a1, a1; \
	VPXORQ   a0, d0, d0; \
	VPXORQ   a1, d1, d1; \
	VPRORQ   $right, d0, d0; \
	VPRORQ   $right, d1, d1

#define MIX(a0, b0, c0, d0, a1, b1, c1, d1, t0, t1) \
	HALFMIX(a0, b0, d0, a1, b1, d1, 32, t0, t1); \
	HALFMIX(c0, d0, b0, c1, d1, b1, 24, t0, t1); \
	HALFMIX(a0, b0, d0, a1, b1, d1, 16, t0, t1); \
	HALFMIX(c0, d0, b0, c1, d1, b1, 63, t0, t1)

// PAIR moves the lower halves of two vectors into l and the upper ones into h.
// Doing it to l and h brings them back.
#define PAIR(x, y, l, h) \
	VSHUFI64X2 $0x44, y, x, l; \
	VSHUFI64X2 $0xee, y, x, h

// ROTATE turns the rows of the 4x4 matrix of P for the second half of a round: by
// one, two and three words.
#define ROTATE(b, c, d) \
	VPERMQ $0x39, b, b; \
	VPERMQ $0x4e, c, c; \
	VPERMQ $0x93, d, d

#define ROWROUND \
	MIX(Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25)

// ROWS is P over four rows, those in r0 to r7.
#define ROWS(r0, r1, r2, r3, r4, r5, r6, r7) \
	PAIR(r0, r2, Z16, Z17); \
	PAIR(r1, r3, Z18, Z19); \
	PAIR(r4, r6, Z20, Z21); \
	PAIR(r5, r7, Z22, Z23); \
	ROWROUND;               \
	ROTATE(Z17, Z18, Z19);  \
	ROTATE(Z21, Z22, Z23);  \
	ROWROUND;               \
	ROTATE(Z19, Z18, Z17);  \ // back
	ROTATE(Z23, Z22, Z21);  \
	PAIR(Z16, Z17, r0, r2); \
	PAIR(Z18, Z19, r1, r3); \
	PAIR(Z20, Z21, r4, r6); \
	PAIR(Z22, Z23, r5, r7)

// SHIFT moves the pairs of words in x, y one word down: lx gets the upper word of
// x and the lower of y, ly the upper of y and the lower of x.
#define SHIFT(x, y, lx, ly) \
	VPALIGNR $8, x, y, lx; \
	VPALIGNR $8, y, x, ly

// COLUMNS is P over four columns, with vectors of the rows in order. The rows of
// the 4x4 matrix are a0 a1, b0 b1, c0 c1 and d0 d1.
#define COLUMNS(a0, a1, b0, b1, c0, c1, d0, d1) \
	MIX(a0, b0, c0, d0, a1, b1, c1, d1, Z16, Z17);   \
	SHIFT(b0, b1, Z18, Z19);                         \
	SHIFT(d1, d0, Z20, Z21);                         \
	MIX(a0, Z18, c1, Z20, a1, Z19, c0, Z21, Z16, Z17); \
	SHIFT(Z19, Z18, b0, b1);                         \
	SHIFT(Z20, Z21, d0, d1)

// TAKE xors a part of the reference block into the block before, and the result
// into what was in memory.
#define TAKE(at, z) \
	VPXORQ    at(BX), z, z;   \
	VPXORQ    at(DI), z, Z16; \
	VMOVDQA64 Z16, at(DI)

// GIVE finishes a part of the block.
#define GIVE(at, z) \
	VPXORQ    at(DI), z, z; \
	VMOVDQA64 z, at(DI)

// func fillAVX512(c *chunk)
TEXT ·fillAVX512(SB), NOSPLIT, $0-8
	BEGIN
	VMOVDQA64 0(R15), Z0
	VMOVDQA64 64(R15), Z1
	VMOVDQA64 128(R15), Z2
	VMOVDQA64 192(R15), Z3
	VMOVDQA64 256(R15), Z4
	VMOVDQA64 320(R15), Z5
	VMOVDQA64 384(R15), Z6
	VMOVDQA64 448(R15), Z7
	VMOVDQA64 512(R15), Z8
	VMOVDQA64 576(R15), Z9
	VMOVDQA64 640(R15), Z10
	VMOVDQA64 704(R15), Z11
	VMOVDQA64 768(R15), Z12
	VMOVDQA64 832(R15), Z13
	VMOVDQA64 896(R15), Z14
	VMOVDQA64 960(R15), Z15

next:
	TAKE(0, Z0)
	TAKE(64, Z1)
	TAKE(128, Z2)
	TAKE(192, Z3)
	TAKE(256, Z4)
	TAKE(320, Z5)
	TAKE(384, Z6)
	TAKE(448, Z7)
	TAKE(512, Z8)
	TAKE(576, Z9)
	TAKE(640, Z10)
	TAKE(704, Z11)
	TAKE(768, Z12)
	TAKE(832, Z13)
	TAKE(896, Z14)
	TAKE(960, Z15)
	ROWS(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7)
	ROWS(Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15)
	COLUMNS(Z0, Z2, Z4, Z6, Z8, Z10, Z12, Z14)
	GIVE(0, Z0)
	LOOKAHEAD(rest)

rest:
	COLUMNS(Z1, Z3, Z5, Z7, Z9, Z11, Z13, Z15)
	GIVE(64, Z1)
	GIVE(128, Z2)
	GIVE(192, Z3)
	GIVE(256, Z4)
	GIVE(320, Z5)
	GIVE(384, Z6)
	GIVE(448, Z7)
	GIVE(512, Z8)
	GIVE(576, Z9)
	GIVE(640, Z10)
	GIVE(704, Z11)
	GIVE(768, Z12)
	GIVE(832, Z13)
	GIVE(896, Z14)
	GIVE(960, Z15)
	ADDQ $1024, DI
	DECQ R9
	JNE  next

	// Nothing of the last block stays in the registers.
	VPXORQ Z16, Z16, Z16
	VPXORQ Z17, Z17, Z17
	VPXORQ Z18, Z18, Z18
	VPXORQ Z19, Z19, Z19
	VPXORQ Z20, Z20, Z20
	VPXORQ Z21, Z21, Z21
	VPXORQ Z22, Z22, Z22
	VPXORQ Z23, Z23, Z23
	VPXORQ Z24, Z24, Z24
	VPXORQ Z25, Z25, Z25
	VZEROALL
	RET
