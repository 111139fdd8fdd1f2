package chip

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// command is any of go-tpm's, with response R.
type command[R any] interface {
	Execute(t transport.TPM, s ...tpm2.Session) (*R, error)
}

// run executes a command. Response codes other than success come back as
// *CommandError; responses that cannot be read are errors, whatever go-tpm's
// reflection makes of them.
func run[R any](c *Conn, name string, cmd command[R], sessions ...tpm2.Session) (rsp *R, err error) {
	defer func() {
		if p := recover(); p != nil {
			rsp, err = nil, fmt.Errorf("%s: the response is malformed", name)
		}
	}()
	rsp, err = cmd.Execute(c, sessions...)
	if err == nil {
		return rsp, nil
	}
	if rc, ok := errors.AsType[tpm2.TPMRC](err); ok {
		return nil, &CommandError{Command: name, Code: rc}
	}
	return nil, fmt.Errorf("%s: %w", name, err)
}
