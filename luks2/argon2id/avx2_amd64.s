//go:build !purego

#include "kernel_amd64.h"

// Eight vectors of 4 words are mixed at a time, in Y0 to Y7, with Y8 and Y9 for
// intermediate values and the masks in Y10 and Y11.

#define MULADD(a0, b0, a1, b1) \
	VPMULUDQ a0, b0, Y8; \
	VPMULUDQ a1, b1, Y9; \
	VPADDQ   b0, a0, a0; \
	VPADDQ   b1, a1, a1; \
	VPADDQ   Y8, Y8, Y8; \
	VPADDQ   Y9, Y9, Y9; \
	VPADDQ   Y8, a0, a0; \
	VPADDQ   Y9, a1, a1

#define XOR(a0, d0, a1, d1) \
	VPXOR a0, d0, d0; \
	VPXOR a1, d1, d1

// MIX is GB (RFC 9106 §3.6) on two vectors of words at once.
#define MIX(a0, b0, c0, d0, a1, b1, c1, d1) \
	MULADD(a0, b0, a1, b1);   \
	XOR(a0, d0, a1, d1);      \
	VPSHUFD $0xb1, d0, d0;    \
	VPSHUFD $0xb1, d1, d1;    \
	MULADD(c0, d0, c1, d1);   \
	XOR(c0, b0, c1, b1);      \
	VPSHUFB Y10, b0, b0;      \
	VPSHUFB Y10, b1, b1;      \
	MULADD(a0, b0, a1, b1);   \
	XOR(a0, d0, a1, d1);      \
	VPSHUFB Y11, d0, d0;      \
	VPSHUFB Y11, d1, d1;      \
	MULADD(c0, d0, c1, d1);   \
	XOR(c0, b0, c1, b1);      \
	VPADDQ  b0, b0, Y8;       \ // right by 63 is left by one
	VPADDQ  b1, b1, Y9;       \
	VPSRLQ  $63, b0, b0;      \
	VPSRLQ  $63, b1, b1;      \
	VPOR    Y8, b0, b0;       \
	VPOR    Y9, b1, b1

// ROTATE turns the rows of the 4x4 matrix of P for the second half of a round: by
// one, two and three words.
#define ROTATE(b, c, d) \
	VPERMQ $0x39, b, b; \
	VPERMQ $0x4e, c, c; \
	VPERMQ $0x93, d, d

// TAKE xors a part of the block before and the reference block, and the result
// into what was in memory.
#define TAKE(at, y) \
	VMOVDQA at(R15)(AX*1), y;    \
	VPXOR   at(BX)(AX*1), y, y;  \
	VPXOR   at(DI)(AX*1), y, Y8; \
	VMOVDQA Y8, at(DI)(AX*1)

// SHIFT moves the pairs of words in x, y one word down, in place: x gets its upper
// word and the lower of y, y its upper word and the lower of x.
#define SHIFT(x, y) \
	VPALIGNR $8, x, y, Y8; \
	VPALIGNR $8, y, x, y;  \
	VMOVDQA  Y8, x

// GIVE finishes a part of the block.
#define GIVE(at, y) \
	VPXOR   at(DI)(AX*1), y, y; \
	VMOVDQA y, at(DI)(AX*1)

// func fillAVX2(c *chunk)
TEXT ·fillAVX2(SB), NOSPLIT, $0-8
	BEGIN
	VBROADCASTI128 rotate24<>(SB), Y10
	VBROADCASTI128 rotate16<>(SB), Y11

next:
	XORL AX, AX

row:
	// P over the two rows of RFC 9106 §3.5 that begin at byte AX.
	TAKE(0, Y0)
	TAKE(32, Y1)
	TAKE(64, Y2)
	TAKE(96, Y3)
	TAKE(128, Y4)
	TAKE(160, Y5)
	TAKE(192, Y6)
	TAKE(224, Y7)
	MIX(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7)
	ROTATE(Y1, Y2, Y3)
	ROTATE(Y5, Y6, Y7)
	MIX(Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7)
	ROTATE(Y3, Y2, Y1) // back
	ROTATE(Y7, Y6, Y5)
	VMOVDQA Y0, 0(R13)(AX*1)
	VMOVDQA Y1, 32(R13)(AX*1)
	VMOVDQA Y2, 64(R13)(AX*1)
	VMOVDQA Y3, 96(R13)(AX*1)
	VMOVDQA Y4, 128(R13)(AX*1)
	VMOVDQA Y5, 160(R13)(AX*1)
	VMOVDQA Y6, 192(R13)(AX*1)
	VMOVDQA Y7, 224(R13)(AX*1)
	ADDQ $256, AX
	CMPQ AX, $1024
	JNE  row
	XORL AX, AX

column:
	// P over the two columns that begin at byte AX: a vector has two pairs of words
	// of one row. The rows of the 4x4 matrix are Y0 Y1, Y2 Y3, Y4 Y5 and Y6 Y7;
	// turning the third is swapping two names.
	VMOVDQA 0(R13)(AX*1), Y0
	VMOVDQA 128(R13)(AX*1), Y1
	VMOVDQA 256(R13)(AX*1), Y2
	VMOVDQA 384(R13)(AX*1), Y3
	VMOVDQA 512(R13)(AX*1), Y4
	VMOVDQA 640(R13)(AX*1), Y5
	VMOVDQA 768(R13)(AX*1), Y6
	VMOVDQA 896(R13)(AX*1), Y7
	MIX(Y0, Y2, Y4, Y6, Y1, Y3, Y5, Y7)
	SHIFT(Y2, Y3)
	SHIFT(Y7, Y6)
	MIX(Y0, Y2, Y5, Y7, Y1, Y3, Y4, Y6)
	SHIFT(Y3, Y2) // leaves both pairs in each other's register
	SHIFT(Y7, Y6)
	GIVE(0, Y0)
	GIVE(128, Y1)
	GIVE(256, Y3)
	GIVE(384, Y2)
	GIVE(512, Y4)
	GIVE(640, Y5)
	GIVE(768, Y7)
	GIVE(896, Y6)
	TESTQ AX, AX
	JNE  rest
	LOOKAHEAD(first)

first:
	XORL AX, AX

rest:
	ADDQ $32, AX
	CMPQ AX, $128
	JNE  column
	MOVQ DI, R15
	ADDQ $1024, DI
	DECQ R9
	JNE  next

	VZEROALL // nothing of the last block stays in the registers
	RET
