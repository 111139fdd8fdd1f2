// Package image reads initramfs images as the kernel does: cpio archives one after the
// other, each plain or compressed, and the same inside a unified kernel image.
package image

import (
	"bytes"
	"debug/pe"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// File is one file of an image.
type File struct {
	Mode fs.FileMode
	Link string // where a symbolic link points
	Data []byte // of a regular file; nil for kernel modules and firmware
}

// Image is the content of an initramfs, after all its archives were unpacked over each
// other.
type Image struct {
	// KernelLine is the kernel command line in a unified kernel image.
	KernelLine string
	files      map[string]*File
}

// ErrNoImage means that a file has no archive in it.
var ErrNoImage = errors.New("not an initramfs image")

// ErrCut means that an image ends in the middle of an archive.
var ErrCut = errors.New("cut off or damaged, make the image again")

// Open reads an image file or a unified kernel image.
func Open(name string) (*Image, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	im, err := Read(data)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return im, nil
}

// Read is Open for what is in memory.
func Read(data []byte) (*Image, error) {
	im := &Image{files: map[string]*File{}}
	parts := [][]byte{data}
	if bytes.HasPrefix(data, []byte("MZ")) {
		var err error
		if parts, err = im.sections(data); err != nil {
			return nil, err
		}
	}
	for _, part := range parts {
		if err := im.addAll(part, true); err != nil {
			return nil, err
		}
	}
	if len(im.files) == 0 {
		return nil, ErrNoImage
	}
	return im, nil
}

// sections are the images in a unified kernel image.
func (im *Image) sections(data []byte) (parts [][]byte, err error) {
	f, err := pe.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for _, s := range f.Sections {
		if s.Name != ".initrd" && s.Name != ".cmdline" {
			continue
		}
		part, err := s.Data()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: section %s: %w", ErrCut, s.Name, err)
		}
		if err != nil {
			return nil, err
		}
		part = part[:min(len(part), int(max(s.VirtualSize, 1)))]
		if s.Name == ".cmdline" {
			im.KernelLine = strings.TrimRight(string(part), "\x00")
			continue
		}
		parts = append(parts, part)
	}
	return parts, nil
}

// addAll unpacks archive after archive. Zeros between them count for nothing.
func (im *Image) addAll(data []byte, outside bool) error {
	for at := 0; ; {
		for at < len(data) && data[at] == 0 {
			at++
		}
		if at == len(data) {
			return nil
		}
		n, err := im.add(data[at:], outside)
		if outside && errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("%w: %w", ErrCut, err)
		}
		if err != nil {
			return fmt.Errorf("archive at byte %d: %w", at, err)
		}
		at += n
	}
}

// add unpacks the archive at the start of data and returns its length.
func (im *Image) add(data []byte, outside bool) (int, error) {
	if bytes.HasPrefix(data, []byte("07070")) {
		return im.addArchive(data)
	}
	for _, f := range formats() {
		if !outside || !bytes.HasPrefix(data, []byte(f.magic)) {
			continue
		}
		content, n, err := f.unpack(data)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.name, err)
		}
		return n, im.addAll(content, false)
	}
	return 0, ErrNoImage
}

func (im *Image) addArchive(data []byte) (int, error) {
	in := bytes.NewReader(data)
	r := cpio.NewReader(in)
	linked := map[int64]*File{}
	for {
		h, err := r.Next()
		length := len(data) - in.Len()
		if errors.Is(err, io.EOF) && bytes.HasSuffix(bytes.TrimRight(data[:length], "\x00"), []byte("TRAILER!!!")) {
			return length, nil
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			err = im.addFile(h, r, linked)
		}
		if err != nil {
			return 0, err
		}
	}
}

// addFile adds one file. Of those with several names only the last one in the archive
// has the content.
func (im *Image) addFile(h *cpio.Header, content io.Reader, linked map[int64]*File) error {
	f := &File{Mode: h.FileInfo().Mode(), Link: h.Linkname}
	if f.Mode.IsRegular() && h.Links > 1 {
		if other := linked[h.Inode]; other != nil {
			f = other
		}
		linked[h.Inode] = f
	}
	name := clean(h.Name)
	im.files[name] = f
	if !f.Mode.IsRegular() || h.Size == 0 || bulk(name) {
		return nil
	}
	if h.Size > maxContent {
		return fmt.Errorf("%s has %d bytes", name, h.Size)
	}
	data, err := io.ReadAll(content)
	if err == nil && int64(len(data)) != h.Size {
		err = io.ErrUnexpectedEOF
	}
	f.Data = data
	return err
}

// bulk says of which files the content is not kept.
func bulk(name string) bool {
	return strings.Contains(name, "/firmware/") || strings.Contains(path.Base(name), ".ko")
}

// clean is a path without a slash at the start.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// Names are the paths of all files, in no order.
func (im *Image) Names() iter.Seq[string] { return maps.Keys(im.files) }

// maxLinks is how many symbolic links a path may go through, as in the kernel.
const maxLinks = 40

// Find returns a file after following links, and its own path.
func (im *Image) Find(name string) (string, *File) {
	rest := strings.Split(clean(name), "/")
	at := ""
	for links := 0; len(rest) > 0; {
		next := path.Join(at, rest[0])
		rest = rest[1:]
		f := im.files[next]
		if f == nil || f.Mode&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", nil
		}
		target := f.Link
		if !path.IsAbs(target) {
			target = path.Join(at, target)
		}
		rest = append(strings.Split(clean(target), "/"), rest...)
		at = ""
	}
	return at, im.files[at]
}

// Has reports whether there is a file, folder or anything else of that name.
func (im *Image) Has(name string) bool {
	_, f := im.Find(name)
	return f != nil
}
