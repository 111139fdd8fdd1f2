package chip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"luksmith/internal/socket"
	"luksmith/tokens"
)

// CheckName checks the syntax of a --tpm2-device= value.
func CheckName(text string) error {
	if text == "" || text == "auto" || filepath.IsAbs(text) {
		return nil
	}
	if rest, ok := strings.CutPrefix(text, "device:"); ok && filepath.IsAbs(rest) {
		return nil
	}
	if text == "swtpm" || strings.HasPrefix(text, "swtpm:") {
		_, err := parseSWTPM(text)
		return err
	}
	return fmt.Errorf("%.60q is neither auto, an absolute path nor swtpm:host=HOST,port=PORT or swtpm:path=SOCKET", text)
}

// parseSWTPM reads the address of a swtpm. host and port are as in tpm2-tss's
// swtpm transport, without names to resolve; path is a unix socket with the same plain protocol.
func parseSWTPM(text string) (unix.Sockaddr, error) {
	host, port, path := "localhost", uint64(2321), ""
	for word := range strings.SplitSeq(strings.TrimPrefix(strings.TrimPrefix(text, "swtpm"), ":"), ",") {
		if word == "" {
			continue
		}
		switch key, value, _ := strings.Cut(word, "="); key {
		case "host":
			host = value
		case "port":
			n, err := strconv.ParseUint(value, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("%.20q is not a port", value)
			}
			port = n
		case "path":
			if !filepath.IsAbs(value) {
				return nil, fmt.Errorf("the path of the socket, %.60q, is not absolute", value)
			}
			path = value
		default:
			return nil, fmt.Errorf("%.20q is not known: a swtpm has host=, port= or path=", key)
		}
	}
	if path != "" {
		return socket.Unix(path), nil
	}
	return socket.TCP(host, uint16(port))
}

func openLink(ctx context.Context, device, root string) (Link, error) {
	if device == "" || device == "auto" {
		path, err := onlyDevice(root)
		if err != nil {
			return nil, err
		}
		device = path
	}
	l, err := dialDevice(ctx, strings.TrimPrefix(device, "device:"))
	switch {
	case err == nil:
		return l, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, openError(device, err)
}

// openError says why a TPM cannot be opened and what helps.
func openError(device string, err error) error {
	sentinel, hint := tokens.ErrNoDevice, "see which TPMs are there: cryptenroll --tpm2-device=list"
	switch {
	case errors.Is(err, unix.EBUSY):
		sentinel, hint = tokens.ErrBusy, "use /dev/tpmrm0, which programs can share, or end the one that uses the TPM"
	case errors.Is(err, fs.ErrPermission):
		return tokens.WithHint(fmt.Errorf("opening the TPM: %w", err), "run this as root or as a member of the group tss")
	case strings.HasPrefix(device, "swtpm"):
		hint = "start the swtpm that is to listen there"
	}
	return tokens.WithHint(fmt.Errorf("opening the TPM: %w: %w", sentinel, err), hint)
}

func dialDevice(ctx context.Context, device string) (Link, error) {
	if strings.HasPrefix(device, "swtpm") {
		address, err := parseSWTPM(device)
		if err != nil {
			return nil, err
		}
		return dialLink(ctx, address)
	}
	info, err := os.Stat(device)
	switch {
	case err != nil:
		return nil, err
	case info.Mode().Type() == fs.ModeSocket:
		return dialLink(ctx, socket.Unix(device))
	case info.Mode().Type() != fs.ModeDevice|fs.ModeCharDevice:
		return nil, fmt.Errorf("%s is not a character device", device)
	}
	return openDeviceLink(device)
}

// sysTPM is where the kernel lists the TPMs that it manages resources for.
func sysTPM(root string) string { return filepath.Join("/", root, "/sys/class/tpmrm") }

// Paths are the TPMs that the kernel manages resources for, on the machine
// whose files are below root.
func Paths(root string) ([]string, error) {
	d, err := os.Open(sysTPM(root))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking for TPMs: %w", err)
	}
	defer d.Close()
	list, err := d.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("looking for TPMs: %w", err)
	}
	for i, name := range list {
		list[i] = filepath.Join("/", root, "/dev", name)
	}
	slices.Sort(list)
	return list, nil
}

func onlyDevice(root string) (string, error) {
	list, err := Paths(root)
	if err != nil {
		return "", err
	}
	switch len(list) {
	case 0:
		return "", tokens.WithHint(noTPM(sysTPM(root)),
			"switch the TPM on in the firmware setup, where it may be called fTPM or PTT, or load its driver: tpm_tis or tpm_crb")
	case 1:
		return list[0], nil
	}
	return "", tokens.WithHint(fmt.Errorf("%w: %s", tokens.ErrSeveralDevices, strings.Join(list, ", ")), "name one of them by its path instead of \"auto\"")
}

// noTPM is [tokens.ErrNoDevice] with the folder in which there is none.
type noTPM string

func (e noTPM) Error() string        { return "no TPM in " + string(e) }
func (e noTPM) Is(target error) bool { return target == tokens.ErrNoDevice }
