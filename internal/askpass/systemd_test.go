package askpass

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"luksmith/internal/test/testenv"
)

// childAsksAgents puts a question for systemd's agents, in a mount namespace of
// its own, and starts the agent of agentVariable on the terminal.
func childAsksAgents() error {
	a := New(Options{AgentDir: AgentDir, ID: AgentID("/dev/x"), Icon: "drive-harddisk", Echo: map[string]Echo{"yes": EchoText, "no": EchoSilent}[os.Getenv("ECHO")]})
	p := a.Start(context.Background(), PassphraseQuestion{Kind: Passphrase, Disk: "grün (home)"}.Question())
	for {
		if list, _ := filepath.Glob(AgentDir + "/ask.*"); len(list) == 1 {
			break
		}
	}
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	agent := exec.Command("sh", "-c", os.Getenv(agentVariable))
	agent.Stdin, agent.Stdout, agent.Stderr = tty, tty, tty
	if err := agent.Start(); err != nil {
		return err
	}
	if os.Getenv("WITHDRAW") != "" {
		pause()
		p.Cancel()
	}
	answer, err := p.Wait()
	say(fmt.Sprintf("%q from %s, %v", texts(answer.Secrets), answer.Source, err))
	answer.Wipe()
	if err := agent.Wait(); err != nil {
		return err
	}
	left, err := os.ReadDir(AgentDir)
	say(fmt.Sprintf("left: %v, %v", left, err))
	return nil
}

const agentVariable = "LUKSMITH_ASKPASS_AGENT"

// agents are versions of systemd's programs: each has a script that sets up a
// mount namespace, and a way to run a program.
var agents = map[string]func(t *testing.T, program string) (setup, run string){
	"installed": func(_ *testing.T, program string) (setup, run string) {
		return "mount -t tmpfs tmpfs /run/systemd/ask-password", program
	},
	"257": func(t *testing.T, program string) (setup, run string) {
		root := testenv.Systemd257(t).Root
		return fmt.Sprintf(`mount -t tmpfs tmpfs /run/systemd/ask-password &&
mount --rbind /dev %[1]s/dev && mount -t proc proc %[1]s/proc && mount -t tmpfs tmpfs %[1]s/run && mkdir -p %[1]s/run/systemd/ask-password &&
mount --bind /run/systemd/ask-password %[1]s/run/systemd/ask-password`, root), "chroot " + root + " " + program
	},
}

func needAgents(t *testing.T) {
	t.Helper()
	testenv.NeedRoot(t)
	testenv.Need(t, "unshare", "timeout", "systemd-tty-ask-password-agent", "systemd-ask-password")
}

// startAgent runs a child in its own mount namespace after the set-up script.
func startAgent(t *testing.T, setup, agent string, env ...string) *child {
	t.Helper()
	script := setup + ` && exec "$0"`
	env = append(env, agentVariable+"="+agent, "PATH="+os.Getenv("PATH"), "LC_ALL=C.UTF-8")
	return startProgram(t, []string{"unshare", "-m", "sh", "-c", script, os.Args[0]}, "ask agents", env...)
}

// masked waits for asterisks, or the bullets that newer versions show instead.
func (c *child) masked(text string) {
	c.t.Helper()
	c.until(text, func(screen string) bool { return strings.HasSuffix(strings.ReplaceAll(screen, "•", "*"), text) })
}

// TestSystemdsAgentsAnswer types at systemd-tty-ask-password-agent.
func TestSystemdsAgentsAnswer(t *testing.T) {
	needAgents(t)
	for name, command := range agents {
		t.Run(name, func(t *testing.T) {
			setup, agent := command(t, "systemd-tty-ask-password-agent --query")
			t.Run("masked", func(t *testing.T) {
				t.Parallel()
				c := startAgent(t, setup, agent)
				c.shows("Please enter passphrase for disk grün (home): (press TAB for no echo)")
				c.types("hünter2")
				c.masked("*******")
				c.types("\n")
				c.said(`"hünter2" from password agent, <nil>`)
				c.said("left: [], <nil>")
			})
			t.Run("silent", func(t *testing.T) {
				t.Parallel()
				c := startAgent(t, setup, agent, "ECHO=no")
				c.shows("Please enter passphrase for disk grün (home):")
				c.types("hunter2\n")
				c.said(`"hunter2" from password agent, <nil>`)
			})
			t.Run("echo", func(t *testing.T) {
				t.Parallel()
				c := startAgent(t, setup, agent, "ECHO=yes")
				c.shows("Please enter passphrase for disk grün (home):")
				c.types("hunter2")
				c.until("hunter2", func(screen string) bool { return strings.HasSuffix(screen, "hunter2") })
				c.types("\n")
				c.said(`"hunter2" from password agent, <nil>`)
			})
			t.Run("withdrawn", func(t *testing.T) {
				t.Parallel()
				c := startAgent(t, setup, agent, "WITHDRAW=1")
				c.shows("(press TAB for no echo)")
				c.types("half")
				c.masked("****")
				c.goOn()
				c.said(`"" from , context canceled`)
				c.said("left: [], <nil>") // the agent has ended too
			})
			t.Run("list", func(t *testing.T) {
				t.Parallel()
				_, list := command(t, "systemd-tty-ask-password-agent --list")
				_, reply := command(t, "/usr/lib/systemd/systemd-reply-password 0")
				c := startAgent(t, setup, list+`; printf x | `+reply+` "$(sed -n s/^Socket=//p /run/systemd/ask-password/ask.*)"`)
				c.said(`"" from , cancelled`)
				c.until("the question in the list", func(screen string) bool {
					return strings.HasPrefix(screen, "'Please enter passphrase for disk grün (home):' (PID ")
				})
			})
			t.Run("reply", func(t *testing.T) {
				t.Parallel()
				_, reply := command(t, "/usr/lib/systemd/systemd-reply-password 1")
				c := startAgent(t, setup, `printf 'correct horse' | `+reply+` "$(sed -n s/^Socket=//p /run/systemd/ask-password/ask.*)"`)
				c.said(`"correct horse" from password agent, <nil>`)
			})
		})
	}
}

// TestSystemdAsksTheSameWay compares our question with that of
// systemd-ask-password, member for member.
func TestSystemdAsksTheSameWay(t *testing.T) {
	needAgents(t)
	for name, command := range agents {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			setup, run := command(t, `systemd-ask-password --no-tty --no-output --icon=drive-harddisk --id="cryptsetup:/dev/x" --timeout=0 "Please enter passphrase for disk grün (home):"`)
			out := testenv.Run(t, "timeout", "60", "unshare", "-m", "sh", "-c", setup+" && { "+run+` & }
until [ -e /run/systemd/ask-password/ask.* ]; do sleep 0.01; done
cat /run/systemd/ask-password/ask.*
kill $!; wait`)
			f := agentFile{socket: member(out, "Socket"), message: "Please enter passphrase for disk grün (home):", icon: "drive-harddisk", id: AgentID("/dev/x")}
			ours := strings.Replace(f.text(), fmt.Sprintf("PID=%d\n", os.Getpid()), "PID="+member(out, "PID")+"\n", 1)
			if out != ours {
				t.Errorf("systemd writes\n%s\nwe write\n%s", out, ours)
			}
		})
	}
}

// TestSystemdEscapesTheIdAlike has systemd-cryptsetup ask for a volume with an
// awkward name.
func TestSystemdEscapesTheIdAlike(t *testing.T) {
	needAgents(t)
	testenv.Need(t, "cryptsetup", "/lib/systemd/systemd-cryptsetup")
	t.Parallel()
	volume := filepath.Join(t.TempDir(), "it's \"ü\" \\ \t.img")
	if err := os.WriteFile(volume, make([]byte, 16<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	key := write(t, t.TempDir(), "key", "x", 0o600)
	testenv.Run(t, "cryptsetup", "luksFormat", "--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--luks2-metadata-size=16k",
		"--luks2-keyslots-size=256k", "--key-file", key, volume)
	out := testenv.Run(t, "timeout", "60", "unshare", "-m", "sh", "-c", `mount -t tmpfs tmpfs /run/systemd/ask-password
/lib/systemd/systemd-cryptsetup attach luksmith-test "$0" - luks </dev/null >/dev/null 2>&1 &
until [ -e /run/systemd/ask-password/ask.* ]; do kill -0 $! || exit 1; sleep 0.01; done
cat /run/systemd/ask-password/ask.*
kill $!; wait`, volume)
	if got := member(out, "Id"); got != AgentID(volume) {
		t.Errorf("systemd's Id is\n%s, ours\n%s", got, AgentID(volume))
	}
	if got := member(out, "Message"); got != "Please enter passphrase for disk luksmith-test:" {
		t.Errorf("message %q", got)
	}
}
