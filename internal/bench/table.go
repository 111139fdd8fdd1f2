package main

import (
	"fmt"
	"strconv"
	"strings"
)

// row is one line of the table.
type row struct {
	what  string
	pkg   string
	bench string // full name, with sub-benchmarks
	times string // -benchtime
	// ratio is the metric that is compared with most, the promise; ours and peer
	// are the metrics with the two values, "" for none.
	ratio, ours, peer string
	most              float64
}

// table is what luksmith promises, in the order of the README.
var table = []row{
	{"list, CPU ms", "cryptenroll", "List", "20x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.40},
	{"list, peak memory KiB", "cryptenroll", "List", "20x", "KiB/peer", "KiB", "peer-KiB", 0.50},
	{"passphrase, PBKDF2, CPU ms", "cryptenroll", "Passphrase/pbkdf2-1000", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.42},
	{"passphrase, last of 8, CPU ms", "cryptenroll", "Passphrase/pbkdf2-1000_in_the_last_of_8", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.30},
	{"passphrase, last of 32, CPU ms", "cryptenroll", "Passphrase/pbkdf2-1000_in_the_last_of_32", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.30},
	{"passphrase, 16 MiB, CPU ms", "cryptenroll", "Passphrase/argon2id_16_MiB", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.50},
	{"passphrase, 64 MiB, CPU ms", "cryptenroll", "Passphrase/argon2id_64_MiB", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.50},
	{"passphrase, 64 MiB, wall ms", "cryptenroll", "Passphrase/argon2id_64_MiB", "10x", "wall/peer", "wall-ms", "peer-wall-ms", 0.45},
	{"passphrase, 1 GiB, user CPU", "cryptenroll", "Passphrase/argon2id_1_GiB", "10x", "user/peer", "", "", 0.60},
	{"passphrase, 1 GiB, wall ms, its memory found after Enter", "cryptenroll", "Passphrase/argon2id_1_GiB", "10x", "wall/peer", "wall-ms", "peer-wall-ms", 0.65},
	{"passphrase, 1 GiB, peak memory KiB", "cryptenroll", "Passphrase/argon2id_1_GiB", "10x", "KiB", "", "", 1040 << 10},
	{"passphrase, 2 GiB, user CPU", "cryptenroll", "Passphrase/argon2id_2_GiB", "10x", "user/peer", "", "", 0.60},
	{"passphrase, 64 MiB, wall from Enter", "cryptsetup-unit", "Several/4_volumes_of_64_MiB", "3x", "one-by-one/peer", "", "", 0.45},
	{"passphrase, 1 GiB, wall from Enter", "cryptsetup-unit", "Several/4_volumes_of_1024_MiB", "3x", "one-by-one/peer", "", "", 0.45},
	{"passphrase, 4 volumes of 64 MiB, wall ms; peer one by one", "cryptsetup-unit", "Several/4_volumes_of_64_MiB", "3x", "wall/peer", "wall-ms", "peer-wall-ms", 0.60},
	{"passphrase, 4 volumes of 1 GiB, wall ms; peer one by one", "cryptsetup-unit", "Several/4_volumes_of_1024_MiB", "3x", "wall/peer", "wall-ms", "peer-wall-ms", 0.60},
	{"enrol a recovery key, CPU ms", "cryptenroll", "EnrollRecovery", "10x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 0.75},
	{"predict 4 boot entries of 100 MB, CPU ms; peer sha256sum", "internal/forecast", "Predict/4_entries", "3x", "cpu/peer", "cpu-ms", "peer-cpu-ms", 1.20},
	{"predict 1 to 8 boot entries, the last 4 by the 3 before", "internal/forecast", "Predict/8_entries", "3x", "growth", "", "", 1.5},
	{"follow with nothing to do, CPU ms", "cryptenroll", "FollowIdle", "20x", "cpu-ms", "cpu-ms", "", 50},
	{"TPM, 1 token, commands", "tokens/tpm2", "Alternatives/last_of_1", "20x", "commands", "commands", "", 7},
	{"TPM, the last of 2 alternatives fits, commands", "tokens/tpm2", "Alternatives/last_of_2", "20x", "commands", "commands", "", 7},
	{"TPM, the last of 4 alternatives fits, commands", "tokens/tpm2", "Alternatives/last_of_4", "20x", "commands", "commands", "", 7},
	{"TPM, the last of 8 alternatives fits, commands", "tokens/tpm2", "Alternatives/last_of_8", "20x", "commands", "commands", "", 7},
	{"TPM, the last of 8 alternatives fits, time by that of 1", "tokens/tpm2", "Alternatives/last_of_8", "20x", "wall/one", "wall-ms", "", 3},
	{"attach by key file, ms of instructions", "e2e", "Attach/systemd_257", "1x", "keyfile/peer", "keyfile-ms", "peer-keyfile-ms", 0.60},
	{"attach by key file, ms of instructions; peer systemd 252", "e2e", "Attach/systemd_252", "1x", "keyfile/peer", "keyfile-ms", "peer-keyfile-ms", 0.60},
	{"attach by TPM, ms of instructions", "e2e", "Attach/systemd_257", "1x", "tpm2/peer", "tpm2-ms", "peer-tpm2-ms", 0.25},
	{"attach by TPM, ms of instructions; peer systemd 252", "e2e", "Attach/systemd_252", "1x", "tpm2/peer", "tpm2-ms", "peer-tpm2-ms", 0.50},
	{"attach 4 volumes by key file, instructions; peer one by one", "e2e", "AttachAll", "1x", "4/peer", "", "", 0.60},
	{"attach 16 volumes by key file, instructions; peer one by one", "e2e", "AttachAll", "1x", "16/peer", "", "", 0.60},
	{"attach 1 to 16 volumes, one of the last 12 by one of the first", "e2e", "AttachAll", "1x", "growth", "", "", 1.2},
	{"list, instructions", "e2e", "Start", "1x", "list/peer", "", "", 0.40},
	{"start of cryptsetup-unit, ms of instructions", "e2e", "Start", "1x", "unit-ms", "unit-ms", "peer-unit-ms", 4.5},
	{"start of cryptenroll, ms of instructions", "e2e", "Start", "1x", "cryptenroll-ms", "cryptenroll-ms", "peer-cryptenroll-ms", 6},
}

// top is the benchmark without its sub-benchmarks.
func (r row) top() string {
	name, _, _ := strings.Cut(r.bench, "/")
	return "Benchmark" + name
}

// cells are the columns of a row.
func (r row) cells(m metrics) []string {
	ratio, ok := m[r.ratio]
	if !ok {
		return []string{r.what, "-", "-", "not measured", number(r.most), "-"}
	}
	met := "yes"
	if ratio > r.most {
		met = "NO"
	}
	return []string{r.what, m.text(r.ours), m.text(r.peer), number(ratio), number(r.most), met}
}

// metrics are what one benchmark reported, by unit.
type metrics map[string]float64

func (m metrics) text(unit string) string {
	if v, ok := m[unit]; ok {
		return number(v)
	}
	return "-"
}

func number(v float64) string {
	if v >= 100 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// parse reads the lines of go test: a name, a count, then values with their units.
// The names come without "Benchmark" and the number of processors.
func parse(output string) map[string]metrics {
	found := map[string]metrics{}
	for line := range strings.Lines(output) {
		fields := strings.Fields(line)
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		m := metrics{}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				m[fields[i+1]] = v
			}
		}
		found[withoutProcessors(strings.TrimPrefix(fields[0], "Benchmark"))] = m
	}
	return found
}

// withoutProcessors cuts the "-2" of GOMAXPROCS. Names of benchmarks may end in a
// number themselves: with one processor nothing is appended.
func withoutProcessors(name string) string {
	for _, r := range table {
		if rest, ok := strings.CutPrefix(name, r.bench); ok && (rest == "" || strings.HasPrefix(rest, "-") && !strings.Contains(rest[1:], "-")) {
			if _, err := strconv.Atoi(strings.TrimPrefix(rest, "-")); rest == "" || err == nil {
				return r.bench
			}
		}
	}
	return name
}
