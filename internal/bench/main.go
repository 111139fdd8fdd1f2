// Command bench measures what luksmith promises about speed and weight, beside the
// peers, and prints one table. `make bench` runs it.
//
// The measuring is done by the benchmarks of the packages, which run both programs
// in turn. Their raw output is kept, a file for each, so that a figure can be looked
// at again.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	dir := flag.String("raw", "build/bench", "keep the raw output of the runs in `FOLDER`")
	only := flag.String("only", "", "measure only what has `TEXT` in its name")
	flag.Parse()
	if err := measure(*dir, *only); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

// measure runs what the table needs and prints it.
func measure(dir, only string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	wanted, runs := selectRows(only)
	results := map[string]metrics{}
	for _, r := range runs {
		fmt.Fprintf(os.Stderr, "%s %s …\n", r.pkg, r.bench)
		found, err := r.run(dir)
		if err != nil {
			fmt.Fprintf(os.Stderr, "bench: %s %s: %v\n", r.pkg, r.bench, err)
		}
		for name, m := range found {
			results[name] = m
		}
	}
	fmt.Printf("%s, %s\n\n", time.Now().Format(time.DateOnly), machine())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "WHAT\tOURS\tPEER\tRATIO\tPROMISED\tMET")
	for _, row := range wanted {
		fmt.Fprintln(w, strings.Join(row.cells(results[row.bench]), "\t"))
	}
	return w.Flush()
}

// selectRows are the rows with the text in their names and the runs that they need,
// each once.
func selectRows(text string) (rows []row, runs []run) {
	needed := map[run]bool{}
	for _, r := range table {
		if !strings.Contains(strings.ToLower(r.what+" "+r.bench), strings.ToLower(text)) {
			continue
		}
		rows = append(rows, r)
		if top := (run{r.pkg, r.top(), r.times}); !needed[top] {
			needed[top] = true
			runs = append(runs, top)
		}
	}
	return rows, runs
}

// run is one call of go test.
type run struct {
	pkg   string
	bench string // BenchmarkX without sub-benchmarks
	times string // -benchtime
}

// run returns the metrics by the benchmark's full name and keeps the output in dir.
func (r run) run(dir string) (map[string]metrics, error) {
	cmd := exec.Command("go", "test", "-run", "^$", "-bench", "^"+r.bench+"$", "-benchtime", r.times, "-timeout", "60m", "./"+r.pkg)
	out, err := cmd.CombinedOutput()
	name := filepath.Join(dir, strings.ReplaceAll(r.pkg, "/", "-")+"-"+r.bench+".txt")
	if werr := os.WriteFile(name, out, 0o644); werr != nil {
		return nil, werr
	}
	if err != nil {
		err = fmt.Errorf("%w: see %s", err, name)
	}
	return parse(string(out)), err
}

// machine says what the figures were measured on.
func machine() string {
	model := "unknown processor"
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	return fmt.Sprintf("%s, %d cores", model, runtime.NumCPU())
}
