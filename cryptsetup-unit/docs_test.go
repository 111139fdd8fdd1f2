package main

import (
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"luksmith/crypttab"
	"luksmith/internal/test/testenv"
)

func manual(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("../docs/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// documentedOptions are the words that the manual's lists explain.
func documentedOptions(t *testing.T) (list []string) {
	t.Helper()
	_, options, _ := strings.Cut(manual(t, "luksmith-crypttab.5"), "\n.Sh OPTIONS\n")
	options, _, _ = strings.Cut(options, "\n.Sh ")
	for _, item := range regexp.MustCompile(`(?m)^\.It (.*)$`).FindAllStringSubmatch(options, -1) {
		for _, m := range regexp.MustCompile(`Cm (\S+)`).FindAllStringSubmatch(item[1], -1) {
			list = append(list, m[1])
		}
	}
	return list
}

func TestManualNamesEveryOption(t *testing.T) {
	t.Parallel()
	documented := documentedOptions(t)
	var known []string
	for _, row := range newGrammar() {
		known = append(known, row.Name)
		if row.Alias != "" {
			known = append(known, row.Alias)
		}
	}
	for _, name := range known {
		if n := len(documented) - len(slices.DeleteFunc(slices.Clone(documented), func(d string) bool { return d == name })); n != 1 {
			t.Errorf("luksmith-crypttab(5) explains %s %d times", name, n)
		}
	}
	for _, name := range documented {
		if !slices.Contains(known, name) {
			t.Errorf("luksmith-crypttab(5) explains %s, which is not an option", name)
		}
	}
}

// TestManualSaysWhichOptionsAreFatal compares the remarks with the table.
func TestManualSaysWhichOptionsAreFatal(t *testing.T) {
	t.Parallel()
	for _, row := range newGrammar() {
		if !row.Restricts && !row.Fatal || row.Use == crypttab.ForPlain || row.Name == "link-volume-key" {
			continue
		}
		item := regexp.MustCompile(`(?m)^\.It .*Cm ` + regexp.QuoteMeta(row.Name) + `\b.*\n(\.Pq .*fatal)?`).FindStringSubmatch(manual(t, "luksmith-crypttab.5"))
		if item == nil || item[1] == "" {
			t.Errorf("%s: the manual does not say that it is fatal", row.Name)
		}
	}
}

func TestManualNamesEveryCommandAndFlag(t *testing.T) {
	t.Parallel()
	text := manual(t, "cryptsetup-unit.8")
	for _, v := range verbs() {
		_, synopsis, _ := strings.Cut(text, "\n.Cm "+v.name+"\n")
		synopsis, _, _ = strings.Cut(synopsis, "\n.Nm\n")
		if synopsis == "" || !strings.Contains(text, "\n.It Cm "+v.name) {
			t.Errorf("cryptsetup-unit(8) has no line .Cm %s in its synopsis or no item .It Cm %[1]s", v.name)
		}
		flags, _ := v.make()
		for _, f := range flags {
			if !strings.Contains(synopsis, ".Op Fl -"+f.name) {
				t.Errorf("the synopsis of cryptsetup-unit(8) does not name --%s of %s", f.name, v.name)
			}
		}
	}
}

func TestManualsAreCleanMdoc(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "mandoc")
	for _, name := range []string{"cryptsetup-unit.8", "luksmith-crypttab.5"} {
		testenv.Run(t, "mandoc", "-T", "lint", "-W", "warning", "../docs/"+name)
	}
}

// TestRecipesOfTheInitrdParse reads the scripts that docs/initrd.md has people copy, and
// looks for the commands and paths in them that are ours.
func TestRecipesOfTheInitrdParse(t *testing.T) {
	t.Parallel()
	recipes := regexp.MustCompile("(?s)<!-- recipe: ([^\n]*) -->\n```sh\n(.*?)```").FindAllStringSubmatch(manual(t, "initrd.md"), -1)
	if len(recipes) != 1 {
		t.Errorf("%d recipes", len(recipes))
	}
	ours := regexp.MustCompile(`cryptsetup-unit ([a-z-]+)(?: --([a-z]+))?`)
	for _, r := range recipes {
		name, text := r[1], r[2]
		shell := "sh"
		if strings.HasPrefix(text, "#!/bin/bash") || strings.Contains(text, "=(") || strings.Contains(text, "+=") {
			shell = "bash"
		}
		cmd := exec.Command(shell, "-n")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		for _, call := range ours.FindAllStringSubmatch(text, -1) {
			v, _, err := findVerb("cryptsetup-unit", []string{call[1]})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			flags, _ := v.make()
			if !slices.ContainsFunc(flags, func(f flag) bool { return f.name == call[2] }) {
				t.Errorf("%s: %s has no option --%s", name, call[1], call[2])
			}
		}
		if !strings.Contains(text, "cryptsetup-unit") {
			t.Errorf("%s: nothing of ours is in it", name)
		}
	}
}
