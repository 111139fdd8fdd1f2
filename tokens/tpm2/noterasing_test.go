//go:build !goexperiment.runtimesecret

package tpm2

const erasing = false
