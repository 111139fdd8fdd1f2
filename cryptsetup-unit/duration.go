package main

import (
	"strings"
	"time"

	"luksmith/crypttab"
)

// after is time.After that never comes for crypttab.Forever.
func after(d time.Duration) <-chan time.Time {
	if d == crypttab.Forever {
		return nil
	}
	return time.After(d)
}

// forHowLong is a limit for people: "up to 1m30s", "as long as it takes".
func forHowLong(d time.Duration) string {
	if d == crypttab.Forever {
		return "as long as it takes"
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return "up to " + text
}
