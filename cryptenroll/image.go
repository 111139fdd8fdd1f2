package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"luksmith/internal/cli"
	"luksmith/internal/gpt"
	"luksmith/internal/probe"
	"luksmith/luks2"
	"luksmith/tokens"
)

// imageOptions name a volume that is a partition of a disk image.
type imageOptions struct {
	file      string // --image=
	partition string // --partition=: number, PARTUUID or name
}

// given reports whether an image is meant instead of a device.
func (o *imageOptions) given() bool { return o.file != "" }

// partition is where a volume lies in an image file.
type partition struct {
	gpt.Partition
	file string
}

// String names it in messages.
func (p *partition) String() string {
	if p.Name == "" {
		return fmt.Sprintf("partition %d of %s", p.Number, p.file)
	}
	return fmt.Sprintf("partition %d (%q) of %s", p.Number, p.Name, p.file)
}

func (p *partition) window() luks2.Window {
	return luks2.Window{Offset: uint64(p.Start()), Size: uint64(p.Size())}
}

// locate finds the partition that is meant. Nothing is written, and no loop device is
// needed.
func (o *imageOptions) locate() (*partition, error) {
	f, size, err := openImage(o.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	table, err := gpt.ReadImage(f, size)
	if errors.Is(err, gpt.ErrNoTable) {
		return nil, explainNoTable(f, o.file, size)
	}
	if err != nil {
		return nil, cli.WrongDevice(fmt.Errorf("reading %s: %w", o.file, err))
	}
	choice := &imageChoice{imageOptions: o, table: table}
	for _, p := range table.Partitions {
		id, err := probe.Superblock(io.NewSectionReader(f, p.Start(), p.Size()), p.Size())
		if err == nil && id.Type == probe.LUKS {
			choice.volumes = append(choice.volumes, p)
		}
	}
	p, err := choice.find()
	if err != nil {
		return nil, err
	}
	return &partition{*p, o.file}, nil
}

// openImage opens a regular file. What a block device holds is reached through the
// devices of its partitions, which have a cache and locks of their own.
func openImage(path string) (*os.File, int64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, cli.WrongDevice(err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = tokens.WithHint(fmt.Errorf("%s is not a regular file", path), "name the device of the partition instead, without --image=")
	}
	if err != nil {
		_ = f.Close()
		return nil, 0, cli.WrongDevice(err)
	}
	return f, info.Size(), nil
}

// imageFormats are files of virtual machines that hold a disk in another form.
var imageFormats = []struct{ name, magic string }{{"qcow2", "QFI\xfb"}, {"vmdk", "KDMV"}, {"vhdx", "vhdxfile"}, {"vdi", "<<< "}, {"zstd", "\x28\xb5\x2f\xfd"}, {"xz", "\xfd7zXZ"}, {"gzip", "\x1f\x8b"}}

// explainNoTable says what a file is that has no partition table.
func explainNoTable(f io.ReaderAt, path string, size int64) error {
	err := cli.WrongDevice(fmt.Errorf("%s has no GUID partition table", path))
	if id, e := probe.Superblock(f, size); e == nil && id.Type == probe.LUKS {
		return tokens.WithHint(err, "the file is a LUKS volume by itself: name it without --image=")
	}
	var head [8]byte
	_, _ = f.ReadAt(head[:], 0)
	for _, format := range imageFormats {
		if bytes.HasPrefix(head[:], []byte(format.magic)) {
			return tokens.WithHint(err, "it is a "+format.name+" file; make a raw image of it first")
		}
	}
	return err
}

// imageChoice is the choice of one partition.
type imageChoice struct {
	*imageOptions
	table   *gpt.Table
	volumes []gpt.Partition // that hold a LUKS header
}

func (c *imageChoice) find() (*gpt.Partition, error) {
	fits, err := c.discovered(), error(nil)
	if c.partition != "" {
		fits, err = c.named()
	}
	switch {
	case err != nil:
		return nil, err
	case len(fits) == 1:
		return &fits[0], nil
	case len(fits) > 1:
		return nil, c.refuse("several partitions are meant equally", fits)
	case len(c.volumes) > 0:
		return nil, c.refuse("no partition with a LUKS volume has a type and flags by which it could be found", c.volumes)
	}
	return nil, cli.WrongDevice(fmt.Errorf("%s: no partition holds a LUKS volume; it has %s", c.file, partitionNames(c.table.Partitions)))
}

// refuse is the error that leaves the choice to whoever called.
func (c *imageChoice) refuse(why string, list []gpt.Partition) error {
	return tokens.WithHint(usagef("%s: %s: %s", c.file, why, partitionNames(list)), "name one: --partition=NUMBER")
}

// named are the partitions that --partition= names: by number, by PARTUUID or by name.
func (c *imageChoice) named() ([]gpt.Partition, error) {
	fits := func(p gpt.Partition) bool { return p.Name == c.partition }
	if n, err := strconv.Atoi(c.partition); err == nil {
		fits = func(p gpt.Partition) bool { return p.Number == n }
	} else if luks2.ValidUUID(c.partition) {
		fits = func(p gpt.Partition) bool { return strings.EqualFold(p.UUID, c.partition) }
	}
	list := slices.DeleteFunc(slices.Clone(c.table.Partitions), func(p gpt.Partition) bool { return !fits(p) })
	if len(list) == 0 {
		return nil, cli.WrongDevice(fmt.Errorf("%s has no partition %q; it has %s", c.file, c.partition, partitionNames(c.table.Partitions)))
	}
	return list, nil
}

// discovered are the partitions that are meant when none is named: the newest root,
// else the newest /usr, else whatever else has a type of the specification.
func (c *imageChoice) discovered() (list []gpt.Partition) {
	for _, role := range []gpt.Role{gpt.Root, gpt.Usr} {
		if list = c.newest(role); len(list) > 0 {
			return list
		}
	}
	for _, role := range gpt.Roles {
		list = append(list, gpt.Newest(c.volumes, role, "")...)
	}
	return list
}

// newest are those of this machine's architecture or, since an image may be for
// another machine, of all others.
func (c *imageChoice) newest(role gpt.Role) (list []gpt.Partition) {
	if list = gpt.Newest(c.volumes, role, gpt.Native); len(list) > 0 {
		return list
	}
	for _, arch := range gpt.Architectures(c.volumes) {
		list = append(list, gpt.Newest(c.volumes, role, arch)...)
	}
	return list
}

// partitionNames lists partitions for a message: `2 (root, "fooOS_1"), 3`.
func partitionNames(list []gpt.Partition) string {
	texts := make([]string, len(list))
	for i, p := range list {
		var about []string
		if role, arch := p.Role(); role != "" {
			about = append(about, strings.TrimSpace(string(role)+" "+arch))
		}
		if p.Name != "" {
			about = append(about, strconv.Quote(p.Name))
		}
		texts[i] = strconv.Itoa(p.Number)
		if len(about) > 0 {
			texts[i] += " (" + strings.Join(about, ", ") + ")"
		}
	}
	if len(texts) == 0 {
		return "no partitions"
	}
	return strings.Join(texts, ", ")
}
