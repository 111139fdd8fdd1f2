//go:build !amd64

package argon2id

func kernels() []kernel { return []kernel{{"portable", fillPortable}} }
