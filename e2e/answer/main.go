// Command answer is a password agent for guests of e2e: it waits for questions in
// /run/systemd/ask-password (systemd.io/PASSWORD_AGENTS), prints each one and
// replies with the next of its arguments, "+" and a passphrase, or "-" to cancel. An
// argument "PIN:+1234" is for the next question with PIN in its text only. A person
// who hesitates is --after DURATION before the replies.
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
	"slices"
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
	answered := map[string]bool{} // by file
	for ; len(replies) > 0; time.Sleep(5 * time.Millisecond) {
		files, _ := filepath.Glob("/run/systemd/ask-password/ask.*")
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil || answered[f] {
				continue
			}
			i := slices.IndexFunc(replies, func(r string) bool { return strings.Contains(string(text), wordOf(r)) })
			if i < 0 {
				continue
			}
			answered[f] = true
			fmt.Printf("%s\n", text)
			time.Sleep(hesitation)
			if err := reply(string(text), strings.TrimPrefix(replies[i], wordOf(replies[i])+":")); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			replies = slices.Delete(replies, i, i+1)
		}
	}
}

// wordOf is what a question must contain to get a reply, "" for any.
func wordOf(reply string) string {
	word, _, found := strings.Cut(reply, ":")
	if !found || strings.HasPrefix(reply, "+") {
		return ""
	}
	return word
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
		fmt.Println("client", c.RemoteAddr())
		if key == "" {
			continue
		}
		if _, err := c.Write([]byte(key)); err != nil {
			return err
		}
		c.Close()
	}
}
