// What the kernels for amd64 have in common.
//
// SI  the chunk                  R10 address of block 0 of lane 0
// DI  block to fill              R11 lanes to choose from
// R15 block before it            R12 blocks in a lane
// BX  reference block            R13 room for intermediate values
// R8  chunk.same, counted up     R14 where the next J_1 and J_2 are, or 0
// R9  blocks left to fill        AX, CX, DX are free: in AX some kernels count bytes

#include "go_asm.h"
#include "textflag.h"

// BEGIN sets the registers, BX for the first block.
#define BEGIN \
	MOVQ  c+0(FP), SI;             \
	MOVQ  chunk_memory(SI), R10;   \
	MOVQ  chunk_out(SI), DI;       \
	SHLQ  $10, DI;                 \
	ADDQ  R10, DI;                 \
	MOVQ  chunk_prev(SI), R15;     \
	SHLQ  $10, R15;                \
	ADDQ  R10, R15;                \
	MOVQ  chunk_base(SI), AX;      \
	SHLQ  $10, AX;                 \
	ADDQ  AX, R10;                 \
	MOVQ  chunk_n(SI), R9;         \
	MOVQ  chunk_lanes(SI), R11;    \
	MOVQ  chunk_laneLen(SI), R12;  \
	MOVQ  chunk_state(SI), R13;    \
	MOVQ  chunk_same(SI), R8;      \
	MOVQ  chunk_words(SI), R14;    \
	MOVQ  R14, CX;                 \
	TESTQ R14, R14;                \
	CMOVQEQ R15, CX;               \
	MOVQ  (CX), AX;                \
	REFERENCE

// REFERENCE puts the address of the reference block for J_2, J_1 in AX into BX, as
// chunk.reference does (RFC 9106 §3.4.2).
#define REFERENCE \
	MOVL  AX, BX;                  \ // J_1
	SHRQ  $32, AX;                 \ // J_2
	XORL  DX, DX;                  \
	DIVL  R11;                     \ // DX: the lane
	MOVQ  chunk_other(SI), AX;     \
	CMPQ  DX, chunk_own(SI);       \
	CMOVQEQ R8, AX;                \ // AX: the area
	IMULQ BX, BX;                  \
	SHRQ  $32, BX;                 \ // x
	IMULQ AX, BX;                  \
	SHRQ  $32, BX;                 \ // y
	ADDQ  chunk_start(SI), AX;     \
	DECQ  AX;                      \
	SUBQ  BX, AX;                  \ // z
	MOVQ  AX, BX;                  \
	SUBQ  R12, BX;                 \
	CMOVQCS AX, BX;                \ // modulo the length of the lane
	IMULQ R12, DX;                 \
	ADDQ  DX, BX;                  \
	SHLQ  $10, BX;                 \
	ADDQ  R10, BX;                 \
	INCQ  R8

// LOOKAHEAD finds the reference block of the next block and has the CPU fetch it
// while the rest of this one is computed. The first word of this block, which can
// decide about it, is finished and stored before that. last is where to go if there
// is no next block.
#define LOOKAHEAD(last) \
	CMPQ  R9, $1;                  \
	JEQ   last;                    \
	LEAQ  8(R14), CX;              \
	TESTQ R14, R14;                \
	CMOVQEQ DI, CX;                \
	CMOVQNE CX, R14;               \
	MOVQ  (CX), AX;                \
	REFERENCE;                     \
	FETCH

#define FETCH \
	PREFETCHT0 0(BX);              \
	PREFETCHT0 64(BX);             \
	PREFETCHT0 128(BX);            \
	PREFETCHT0 192(BX);            \
	PREFETCHT0 256(BX);            \
	PREFETCHT0 320(BX);            \
	PREFETCHT0 384(BX);            \
	PREFETCHT0 448(BX);            \
	PREFETCHT0 512(BX);            \
	PREFETCHT0 576(BX);            \
	PREFETCHT0 640(BX);            \
	PREFETCHT0 704(BX);            \
	PREFETCHT0 768(BX);            \
	PREFETCHT0 832(BX);            \
	PREFETCHT0 896(BX);            \
	PREFETCHT0 960(BX)

// Masks for PSHUFB that rotate the words of a vector right by 24 and by 16 bits.
DATA rotate24<>+0(SB)/8, $0x0201000706050403
DATA rotate24<>+8(SB)/8, $0x0a09080f0e0d0c0b
GLOBL rotate24<>(SB), NOPTR|RODATA, $16
DATA rotate16<>+0(SB)/8, $0x0100070605040302
DATA rotate16<>+8(SB)/8, $0x09080f0e0d0c0b0a
GLOBL rotate16<>(SB), NOPTR|RODATA, $16
