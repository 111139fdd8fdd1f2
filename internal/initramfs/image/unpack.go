package image

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// A format is a compression that the kernel knows.
type format struct {
	name, magic string
	// unpack returns what a member at the start of data holds, and how much of data
	// the member is.
	unpack func(data []byte) (content []byte, length int, err error)
}

// formats are in lib/decompress.c of Linux. bzip2 and lzo are hardly made any more.
func formats() []format {
	return []format{
		{"gzip", "\x1f\x8b", unpackGzip},
		{"zstd", "\x28\xb5\x2f\xfd", unpackZstd},
		{"xz", "\xfd7zXZ\x00", unpackXZ},
		{"lz4", "\x02\x21\x4c\x18", unpackLZ4},
		{"bzip2", "BZh", unsupported},
		{"lzma", "\x5d\x00\x00", unsupported},
		{"lzo", "\x89LZO", unsupported},
	}
}

// ErrCompression is about a compression that cannot be read here.
var ErrCompression = errors.New("compression that is not supported")

func unsupported([]byte) ([]byte, int, error) { return nil, 0, ErrCompression }

// maxContent bounds what one member may unpack to.
const maxContent = 1 << 30

// readBounded reads all of r.
func readBounded(r io.Reader) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxContent+1))
	if err == nil && len(b) > maxContent {
		err = fmt.Errorf("more than %d bytes", maxContent)
	}
	return b, err
}

func unpackGzip(data []byte) ([]byte, int, error) {
	in := bytes.NewReader(data)
	z, err := gzip.NewReader(in)
	if err != nil {
		return nil, 0, err
	}
	z.Multistream(false)
	content, err := readBounded(z)
	return content, len(data) - in.Len(), err
}

func unpackZstd(data []byte) ([]byte, int, error) {
	length, err := zstdFrame(data)
	if err != nil {
		return nil, 0, err
	}
	z, err := zstd.NewReader(bytes.NewReader(data[:length]), zstd.WithDecoderMaxWindow(1<<28), zstd.WithDecoderConcurrency(1))
	if err != nil {
		return nil, 0, err
	}
	defer z.Close()
	content, err := readBounded(z)
	return content, length, err
}

// zstdFrame is the length of the frame at the start of data (RFC 8878, 3.1.1). The
// library reads on behind it.
func zstdFrame(data []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(data); err != nil {
		return 0, err
	}
	at := h.HeaderSize
	for last := false; !last; {
		if at+3 > len(data) {
			return 0, io.ErrUnexpectedEOF
		}
		block := int(data[at]) | int(data[at+1])<<8 | int(data[at+2])<<16
		last = block&1 != 0
		size := block >> 3
		if block>>1&3 == 1 { // one byte that is repeated
			size = 1
		}
		at += 3 + size
	}
	if h.HasCheckSum {
		at += 4
	}
	if at > len(data) {
		return 0, io.ErrUnexpectedEOF
	}
	return at, nil
}

func unpackXZ(data []byte) ([]byte, int, error) {
	in := bytes.NewReader(data)
	z, err := xz.ReaderConfig{SingleStream: true}.NewReader(in)
	if err != nil {
		return nil, 0, err
	}
	content, err := readBounded(z)
	length := len(data) - in.Len()
	if err != nil && strings.Contains(err.Error(), "unexpected data after stream") { // whose first byte it has read
		return content, length - 1, nil
	}
	return content, length, err
}

// unpackLZ4 reads the legacy format, the only one of the kernel: blocks of up to 8 MiB,
// each with its length, and no mark at the end (lib/decompress_unlz4.c).
func unpackLZ4(data []byte) ([]byte, int, error) {
	const blockSize = 8 << 20
	magic := binary.LittleEndian.Uint32(data)
	block := make([]byte, blockSize)
	var content []byte
	at := 4
	for at+4 <= len(data) {
		size := binary.LittleEndian.Uint32(data[at:])
		if size == magic {
			at += 4
			continue
		}
		if size == 0 || int64(size) > int64(lz4.CompressBlockBound(blockSize)) || int(size) > len(data)-at-4 {
			break // something else follows
		}
		n, err := lz4.UncompressBlock(data[at+4:at+4+int(size)], block)
		if err != nil {
			return content, at, err
		}
		if content = append(content, block[:n]...); len(content) > maxContent {
			return nil, at, fmt.Errorf("more than %d bytes", maxContent)
		}
		at += 4 + int(size)
	}
	return content, at, nil
}
