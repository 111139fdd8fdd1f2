// Package wire is the language between the tests of e2e and PID 1 of their guest:
// a stream of JSON values in either direction over one virtio-serial port.
package wire

import "time"

// PortName is the name of the virtio-serial port, as in
// /sys/class/virtio-ports/*/name.
const PortName = "luksmith.e2e"

// Request goes to the guest. Exactly one of the members after ID is set.
type Request struct {
	ID       int    // of the process, chosen by the host
	Start    *Start `json:",omitempty"`
	Input    []byte `json:",omitempty"` // for its standard input or terminal
	EndInput bool   `json:",omitempty"` // closes its standard input
	Signal   int    `json:",omitempty"` // for the process, not its group
	File     *File  `json:",omitempty"` // written before the next request is read
}

// Start runs a program.
type Start struct {
	Args []string // Args[0] is looked up in PATH
	Env  []string // added to PID 1's
	Dir  string   // working directory, / if empty
	// Terminal makes a pseudo-terminal its standard input, output, error and
	// controlling terminal; all output then comes as stream 1.
	Terminal bool
	Type     []Keys `json:",omitempty"`
}

// Keys are typed at the terminal by the guest's clock, so that a busy host is not
// late.
type Keys struct {
	After time.Duration // since the start of the process
	Text  []byte
}

// File is written to the guest's file system, parents included.
type File struct {
	Path string
	Data []byte
	Mode uint32
}

// Reply comes from the guest. Exactly one of Ready, Output, Exit and Error is set.
type Reply struct {
	ID     int
	Ready  *Ready `json:",omitempty"` // the first reply of all
	Stream int    `json:",omitempty"` // of Output: 1 or 2
	Output []byte `json:",omitempty"`
	Exit   *Exit  `json:",omitempty"` // the last reply of a process
	Error  string `json:",omitempty"` // a request that could not be carried out
}

// Ready says that the guest takes requests.
type Ready struct {
	Kernel string        // release, as uname -r prints it
	Uptime time.Duration // since the kernel's start
}

// Exit is how a process ended. Times are the guest's, since its boot.
type Exit struct {
	Status         int // exit status, or 128 plus the signal's number
	Started, Ended time.Duration
	User, System   time.Duration // CPU time of the process and the children it waited for
	MaxRSS         int64         // KiB
}
