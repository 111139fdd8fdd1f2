//go:build !amd64 || purego

package argon2id

func kernels() []kernel { return []kernel{{"portable", fillPortable}} }
