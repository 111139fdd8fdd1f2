//go:build !purego

#include "textflag.h"

// The blocks of a sector are computed eight at a time, in X0 to X7: a round of AES
// takes the processor four cycles, in which it can begin that of other blocks.
// X8 is a round key or a part of the mask. DI is at the data, SI at the mask, AX at the
// first round key, CX counts what is left of the sector.

#define BEGIN(at, x) \
	MOVOU at(DI), x; \
	MOVOU at(SI), X9; \
	PXOR  X9, x;      \
	PXOR  X8, x

#define END(at, x) \
	MOVOU at(SI), X8; \
	PXOR  X8, x;      \
	MOVOU x, at(DI)

#define BEGIN8 \
	MOVOU (AX), X8; \
	BEGIN(0, X0);   \
	BEGIN(16, X1);  \
	BEGIN(32, X2);  \
	BEGIN(48, X3);  \
	BEGIN(64, X4);  \
	BEGIN(80, X5);  \
	BEGIN(96, X6);  \
	BEGIN(112, X7); \
	LEAQ  16(AX), BX; \
	MOVQ  DX, R8

#define END8 \
	END(0, X0);   \
	END(16, X1);  \
	END(32, X2);  \
	END(48, X3);  \
	END(64, X4);  \
	END(80, X5);  \
	END(96, X6);  \
	END(112, X7); \
	ADDQ $128, DI; \
	ADDQ $128, SI

// ROUND is one for all eight blocks, with the key at BX.
#define ROUND(AES) \
	MOVOU (BX), X8; \
	AES   X8, X0;   \
	AES   X8, X1;   \
	AES   X8, X2;   \
	AES   X8, X3;   \
	AES   X8, X4;   \
	AES   X8, X5;   \
	AES   X8, X6;   \
	AES   X8, X7;   \
	ADDQ  $16, BX

#define ARGUMENTS \
	MOVQ keys+0(FP), AX;   \
	MOVQ rounds+8(FP), DX; \
	DECQ DX;               \
	MOVQ data+16(FP), DI;  \
	MOVQ mask+24(FP), SI;  \
	MOVQ $4, CX

// func encryptSector(keys *uint32, rounds int, data, mask *byte)
TEXT ·encryptSector(SB), NOSPLIT, $0-32
	ARGUMENTS

eight:
	BEGIN8

round:
	ROUND(AESENC)
	DECQ R8
	JNZ  round
	ROUND(AESENCLAST)
	END8
	DECQ CX
	JNZ  eight
	RET

// func decryptSector(keys *uint32, rounds int, data, mask *byte)
TEXT ·decryptSector(SB), NOSPLIT, $0-32
	ARGUMENTS

eight:
	BEGIN8

round:
	ROUND(AESDEC)
	DECQ R8
	JNZ  round
	ROUND(AESDECLAST)
	END8
	DECQ CX
	JNZ  eight
	RET

// func doubleMask(mask *byte)
//
// Each block of the mask is twice the one before, modulo the polynomial in X2: bits 63
// and 127, which leave their halves, are what X1 adds to the other one.
TEXT ·doubleMask(SB), NOSPLIT, $0-8
	MOVQ       mask+0(FP), SI
	MOVQ       $0x87, AX
	MOVQ       AX, X2
	MOVQ       $1, AX
	MOVQ       AX, X1
	PUNPCKLQDQ X1, X2
	MOVOU      (SI), X0
	MOVQ       $31, CX

double:
	PSHUFD $0x13, X0, X1
	PSRAL  $31, X1
	PAND   X2, X1
	PADDQ  X0, X0
	PXOR   X1, X0
	ADDQ   $16, SI
	MOVOU  X0, (SI)
	DECQ   CX
	JNZ    double
	RET
