//go:build goexperiment.runtimesecret

package tpm2

// erasing: secret.Do erases what libraries leave on the heap.
const erasing = true
