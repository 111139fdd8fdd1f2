package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"luksmith/internal/doctor"
	"luksmith/internal/helper"
	"luksmith/internal/initramfs"
)

// initrdReader is the program that looks into images: what unpacks them would make
// this one larger by half.
const initrdReader = "luksmith-initrd"

// initrdLimit is how long it may take.
const initrdLimit = time.Minute

// bootSwitch is the file that has luksmith in initrds.
const bootSwitch = "etc/luksmith/boot"

// initrdNames are where distributions keep the image of a kernel release.
var initrdNames = []string{"boot/initrd.img-%s", "boot/initramfs-%s.img"}

// image is the initrd to look into: the one named, else that of the running kernel if
// luksmith is to be in it; "" for none.
func (x *examination) image() string {
	if x.initrd != "" {
		return x.initrd
	}
	var name unix.Utsname
	if _, err := os.Stat(filepath.Join(x.app.root, bootSwitch)); err != nil || unix.Uname(&name) != nil {
		return ""
	}
	for _, pattern := range initrdNames {
		path := filepath.Join(x.app.root, fmt.Sprintf(pattern, unix.ByteSliceToString(name.Release[:])))
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// initrdFindings has the image read by the program that can, and tells what it lacks.
func (x *examination) initrdFindings(ctx context.Context) []doctor.Finding {
	path := x.image()
	if path == "" {
		return nil
	}
	unread := func(err error) []doctor.Finding {
		return []doctor.Finding{{Check: "initrd-unread", Severity: doctor.Warning, About: path, Text: "could not be looked into: " + err.Error()}}
	}
	program, err := helper.Find(initrdReader)
	if err != nil {
		return unread(err)
	}
	ctx, stop := context.WithTimeout(ctx, initrdLimit)
	defer stop()
	cmd := exec.CommandContext(ctx, program, "--json=short", "--volume="+x.volume.path, "--", path)
	var out, problem bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problem
	failed := cmd.Run() // also when something is missing
	var found initramfs.Verdict
	if err := json.Unmarshal(out.Bytes(), &found); err != nil {
		_, said, ok := strings.Cut(string(bytes.TrimSpace(problem.Bytes())), "error: ")
		if ok {
			return unread(errors.New(said))
		}
		return unread(cmp.Or(failed, err))
	}
	var list []doctor.Finding
	for _, p := range found.Parts {
		if !p.OK {
			list = append(list, doctor.Finding{Check: "initrd", Severity: doctor.Problem, About: path, Text: fmt.Sprintf("lacks a %s that the volume needs: %s", p.Part, p.What), Command: p.Remedy})
		}
	}
	return list
}
