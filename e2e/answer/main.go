// Command answer is a password agent for guests of e2e: it waits for questions in
// /run/systemd/ask-password (systemd.io/PASSWORD_AGENTS), prints each one and
// replies with the next of its arguments, "+" and a passphrase, or "-" to cancel.
// A person who hesitates is --after DURATION before the replies.
//
// With --server PATH KEY it is a key server instead: it listens on a socket, prints
// by which name each client comes and sends it the key. Without KEY it accepts and
// says nothing.
package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if len(os.Args) >= 3 && os.Args[1] == "--server" {
		fmt.Fprintln(os.Stderr, serve(os.Args[2], strings.Join(os.Args[3:], "")))
		os.Exit(1)
	}
	replies, hesitation := os.Args[1:], time.Duration(0)
	if len(replies) > 1 && replies[0] == "--after" {
		hesitation, _ = time.ParseDuration(replies[1])
		replies = replies[2:]
	}
	seen := map[string]bool{}
	for ; len(replies) > 0; time.Sleep(5 * time.Millisecond) {
		files, _ := filepath.Glob("/run/systemd/ask-password/ask.*")
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil || seen[f] || len(replies) == 0 {
				continue
			}
			seen[f] = true
			fmt.Printf("%s\n", text)
			time.Sleep(hesitation)
			if err := reply(string(text), replies[0]); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			replies = replies[1:]
		}
	}
}

// reply sends one datagram to the socket that a question names.
func reply(question, text string) error {
	for line := range strings.Lines(question) {
		path, ok := strings.CutPrefix(strings.TrimSpace(line), "Socket=")
		if !ok {
			continue
		}
		c, err := net.Dial("unixgram", path)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(text))
		return err
	}
	return fmt.Errorf("no socket in %q", question)
}

func serve(path, key string) error {
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	fmt.Println("listening")
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		defer c.Close()
		if key == "" {
			continue
		}
		fmt.Println("client", c.RemoteAddr())
		if _, err := c.Write([]byte(key)); err != nil {
			return err
		}
		c.Close()
	}
}
