//go:build !386

package dmcrypt

import "golang.org/x/sys/unix"

const sysSemtimedop = unix.SYS_SEMTIMEDOP
