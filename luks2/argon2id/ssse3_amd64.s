//go:build !purego

#include "kernel_amd64.h"

// For CPUs without AVX2. Eight vectors of a pair of words
// are one row or column of RFC 9106 §3.5; they are in X0 to X7, with X8 and X9 for
// intermediate values and the masks in X10 and X11.

#define MULADD(a0, b0, a1, b1) \
	MOVO    a0, X8; \
	MOVO    a1, X9; \
	PMULULQ b0, X8; \
	PMULULQ b1, X9; \
	PADDQ   b0, a0; \
	PADDQ   b1, a1; \
	PADDQ   X8, X8; \
	PADDQ   X9, X9; \
	PADDQ   X8, a0; \
	PADDQ   X9, a1

#define XOR(a0, d0, a1, d1) \
	PXOR a0, d0; \
	PXOR a1, d1

// MIX is GB (RFC 9106 §3.6) on two vectors of words at once.
#define MIX(a0, b0, c0, d0, a1, b1, c1, d1) \
	MULADD(a0, b0, a1, b1); \
	XOR(a0, d0, a1, d1);    \
	PSHUFD $0xb1, d0, d0;   \
	PSHUFD $0xb1, d1, d1;   \
	MULADD(c0, d0, c1, d1); \
	XOR(c0, b0, c1, b1);    \
	PSHUFB X10, b0;         \
	PSHUFB X10, b1;         \
	MULADD(a0, b0, a1, b1); \
	XOR(a0, d0, a1, d1);    \
	PSHUFB X11, d0;         \
	PSHUFB X11, d1;         \
	MULADD(c0, d0, c1, d1); \
	XOR(c0, b0, c1, b1);    \
	MOVO   b0, X8;          \ // right by 63 is left by one
	MOVO   b1, X9;          \
	PADDQ  X8, X8;          \
	PADDQ  X9, X9;          \
	PSRLQ  $63, b0;         \
	PSRLQ  $63, b1;         \
	POR    X8, b0;          \
	POR    X9, b1

// SHIFT moves the words of x, y one down: x gets its upper word and the lower of
// y, y its upper word and the lower of x.
#define SHIFT(x, y) \
	MOVO    y, X8;     \
	PALIGNR $8, x, X8; \
	PALIGNR $8, y, x;  \
	MOVO    x, y;      \
	MOVO    X8, x

// PERMUTE is P. The rows of its 4x4 matrix are X0 X1, X2 X3, X4 X5 and X6 X7;
// turning the third is swapping two names.
#define PERMUTE \
	MIX(X0, X2, X4, X6, X1, X3, X5, X7); \
	SHIFT(X2, X3); \
	SHIFT(X7, X6); \
	MIX(X0, X2, X5, X7, X1, X3, X4, X6); \
	SHIFT(X3, X2); \ // leaves both pairs in each other's register
	SHIFT(X7, X6)

// TAKE xors a part of the block before and the reference block, and the result
// into what was in memory.
#define TAKE(at, x) \
	MOVO at(R15)(AX*1), x; \
	PXOR at(BX)(AX*1), x;  \
	MOVO at(DI)(AX*1), X8; \
	PXOR x, X8;            \
	MOVO X8, at(DI)(AX*1)

// GIVE finishes a part of the block.
#define GIVE(at, x) \
	PXOR at(DI)(AX*1), x; \
	MOVO x, at(DI)(AX*1)

// func fillSSSE3(c *chunk)
TEXT ·fillSSSE3(SB), NOSPLIT, $0-8
	BEGIN
	MOVOU rotate24<>(SB), X10
	MOVOU rotate16<>(SB), X11

next:
	XORL AX, AX

row:
	// P over the row that begins at byte AX.
	TAKE(0, X0)
	TAKE(16, X1)
	TAKE(32, X2)
	TAKE(48, X3)
	TAKE(64, X4)
	TAKE(80, X5)
	TAKE(96, X6)
	TAKE(112, X7)
	PERMUTE
	MOVO X0, 0(R13)(AX*1)
	MOVO X1, 16(R13)(AX*1)
	MOVO X3, 32(R13)(AX*1)
	MOVO X2, 48(R13)(AX*1)
	MOVO X4, 64(R13)(AX*1)
	MOVO X5, 80(R13)(AX*1)
	MOVO X7, 96(R13)(AX*1)
	MOVO X6, 112(R13)(AX*1)
	ADDQ $128, AX
	CMPQ AX, $1024
	JNE  row
	XORL AX, AX

column:
	// P over the column that begins at byte AX.
	MOVO 0(R13)(AX*1), X0
	MOVO 128(R13)(AX*1), X1
	MOVO 256(R13)(AX*1), X2
	MOVO 384(R13)(AX*1), X3
	MOVO 512(R13)(AX*1), X4
	MOVO 640(R13)(AX*1), X5
	MOVO 768(R13)(AX*1), X6
	MOVO 896(R13)(AX*1), X7
	PERMUTE
	GIVE(0, X0)
	GIVE(128, X1)
	GIVE(256, X3)
	GIVE(384, X2)
	GIVE(512, X4)
	GIVE(640, X5)
	GIVE(768, X7)
	GIVE(896, X6)
	TESTQ AX, AX
	JNE  rest
	LOOKAHEAD(first)

first:
	XORL AX, AX

rest:
	ADDQ $16, AX
	CMPQ AX, $128
	JNE  column
	MOVQ DI, R15
	ADDQ $1024, DI
	DECQ R9
	JNE  next

	// Nothing of the last block stays in the registers.
	PXOR X0, X0
	PXOR X1, X1
	PXOR X2, X2
	PXOR X3, X3
	PXOR X4, X4
	PXOR X5, X5
	PXOR X6, X6
	PXOR X7, X7
	PXOR X8, X8
	PXOR X9, X9
	RET
