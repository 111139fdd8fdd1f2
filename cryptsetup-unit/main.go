// Cryptsetup-unit unlocks encrypted volumes when a system starts.
package main

import (
	"fmt"
	"os"
)

// main stands in until the verbs are here.
func main() {
	fmt.Fprintln(os.Stderr, "cryptsetup-unit: error: this build has no verbs")
	os.Exit(1)
}
