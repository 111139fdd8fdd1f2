package main

import (
	"slices"
	"testing"
)

func TestParseReadsWhatGoTestPrints(t *testing.T) {
	found := parse(`goos: linux
BenchmarkList-2          	      20	         0 ns/op	         3.1 cpu-ms	         0.51 cpu/peer	      5000 KiB	       6.0 peer-cpu-ms
BenchmarkPassphrase/pbkdf2-1000-2         	       1	         0 ns/op	         0.45 cpu/peer
BenchmarkPassphrase/pbkdf2-1000_in_the_last_of_8 	       1	         0 ns/op	         0.28 cpu/peer
BenchmarkAttach
    cost_test.go:70: keyfile: 60ms
ok  	luksmith/cryptenroll	1.2s
`)
	for name, want := range map[string]float64{"List": 0.51, "Passphrase/pbkdf2-1000": 0.45, "Passphrase/pbkdf2-1000_in_the_last_of_8": 0.28} {
		if got := found[name]["cpu/peer"]; got != want {
			t.Errorf("%s: %v, want %v: %v", name, got, want, found)
		}
	}
	for _, c := range []struct {
		row  int
		want []string
	}{
		{0, []string{"list, CPU ms", "3.10", "6.00", "0.51", "0.40", "NO"}},
		{1, []string{"list, peak memory KiB", "-", "-", "not measured", "0.50", "-"}},
		{3, []string{"passphrase, last of 8, CPU ms", "-", "-", "0.28", "0.30", "yes"}},
	} {
		r := table[c.row]
		if got := r.cells(found[r.bench]); !slices.Equal(got, c.want) {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestEachBenchmarkRunsOnce(t *testing.T) {
	rows, runs := selectRows("")
	if len(rows) != len(table) || len(runs) >= len(rows) {
		t.Errorf("%d rows, %d runs", len(rows), len(runs))
	}
	if rows, runs := selectRows("recovery"); len(rows) != 1 || len(runs) != 1 {
		t.Errorf("%v, %v", rows, runs)
	}
}
