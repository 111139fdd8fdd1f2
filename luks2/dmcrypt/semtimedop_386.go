package dmcrypt

import "golang.org/x/sys/unix"

const sysSemtimedop = unix.SYS_SEMTIMEDOP_TIME64 // Linux 5.1
