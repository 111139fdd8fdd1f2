// Package varlinkapi serves cryptenroll's Varlink interfaces: io.systemd.CryptEnroll,
// as systemd 262 has it, and luksmith.CryptEnroll, which has the rest.
//
// A caller runs the command with a connected socket as descriptor 3, as
// `varlinkctl call exec:/usr/bin/cryptenroll …` and systemd's socket units with
// Accept=yes do. Nobody is asked anything: what a call does not bring is an error.
//
// github.com/varlink/go takes calls apart and frames replies. The transport is here,
// since passphrases are in the calls: what is read lies in locked memory, and what the
// library copied of it is overwritten before a call is carried out.
package varlinkapi

import (
	"context"
	_ "embed"
	"encoding/json"
	"net"
	"os"
	"strconv"

	"github.com/varlink/go/varlink"

	"luksmith/internal/version"
	"luksmith/luks2/secret"
)

//go:embed io.systemd.CryptEnroll.varlink
var systemdIDL string

//go:embed luksmith.CryptEnroll.varlink
var ownIDL string

// The interfaces.
const (
	systemdName = "io.systemd.CryptEnroll"
	ownName     = "luksmith.CryptEnroll"
)

// Slot is a keyslot; Type is "" for those that have none in io.systemd.CryptEnroll.
type Slot struct {
	Number int    `json:"slot"`
	Type   string `json:"type,omitempty"`
}

// Secrets are borrowed, and empty where there are none.
type Secrets struct {
	Passphrase    secret.Secret // that opens the volume, if UnlockByPassphrase
	NewPassphrase secret.Secret
	PIN, NewPIN   secret.Secret
}

// Request is a call of the command.
type Request struct {
	Node               string
	Words              []string // options, "--tpm2-device=auto"
	UnlockByPassphrase bool     // and by nothing else
	Secrets            Secrets
	AsSystemd          bool   // in the manner of systemd-cryptenroll
	Touch              func() // is called when a device waits for a touch
	// Alive is asked before anything is wiped whether somebody will get the reply.
	Alive func() error
}

// Enrolled is what came of an enrolment.
type Enrolled struct {
	Slot   int
	Wiped  []int
	Key    secret.Secret // a new recovery key, empty for none; the server wipes it
	Result any           // what --json prints
}

// Backend does the work.
type Backend interface {
	Slots(ctx context.Context, node string) ([]Slot, error)
	Enroll(ctx context.Context, r *Request) (*Enrolled, error)
	// Run runs a command that prints JSON: list, test or doctor. Its findings are no
	// errors.
	Run(ctx context.Context, verb string, r *Request) (json.RawMessage, error)
}

// Invoked returns the socket of the caller if the command was started to serve one:
// systemd 262 varlinkctl(1) and sd_listen_fds(3), LISTEN_FDS=1, LISTEN_FDNAMES=varlink.
func Invoked() *net.UnixConn {
	if os.Getenv("LISTEN_FDS") != "1" || os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) || os.Getenv("LISTEN_FDNAMES") != "varlink" {
		return nil
	}
	for _, name := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"} {
		_ = os.Unsetenv(name)
	}
	f := os.NewFile(3, "varlink")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil
	}
	socket, _ := c.(*net.UnixConn)
	return socket
}

// Serve answers one caller until it hangs up. Others than root and the user that the
// command runs as are sent away.
func Serve(ctx context.Context, socket *net.UnixConn, b Backend) error {
	c := newConn(socket)
	defer c.close()
	if !c.trusted() {
		return c.serviceError(ctx, "PermissionDenied")
	}
	service, err := varlink.NewService("luksmith", "cryptenroll", version.Version, "man:cryptenroll(1)")
	if err != nil {
		return err
	}
	for _, i := range []face{{systemdName, systemdIDL, &systemdCalls{b}}, {ownName, ownIDL, &ownCalls{b}}} {
		if err := service.RegisterInterface(i.on(c)); err != nil {
			return err
		}
	}
	for {
		message, files, err := c.next()
		if err != nil {
			return nil // the caller is done
		}
		err = service.HandleMessageWithFDs(ctx, c, message, files)
		c.done(message)
		if err != nil {
			return err
		}
	}
}

// serviceError sends an error of org.varlink.service that the library does not know.
func (c *conn) serviceError(ctx context.Context, name string) error {
	_, err := c.Write(ctx, []byte(`{"error":"org.varlink.service.`+name+`","parameters":{}}`+"\x00"))
	return err
}

// face is an interface, as the library wants one.
type face struct {
	name, idl string
	calls     interface {
		dispatch(ctx context.Context, c *call, method string) error
	}
}

// on binds it to a connection.
func (f face) on(c *conn) *bound { return &bound{f, c} }

type bound struct {
	face
	conn *conn
}

func (b *bound) VarlinkGetName() string        { return b.name }
func (b *bound) VarlinkGetDescription() string { return b.idl }

// VarlinkDispatch carries out one call.
func (b *bound) VarlinkDispatch(ctx context.Context, v varlink.Call, method string) error {
	c := &call{Call: v, conn: b.conn, params: parse(v.In.Parameters), files: v.RequestFDs()}
	defer c.end()
	err := b.calls.dispatch(ctx, c, method)
	if err == nil {
		return nil
	}
	return c.fail(ctx, b.name, err)
}
