//go:build !amd64 || purego

package keyarea

type schedule struct{}

func newSchedule(oneWay) *schedule { return nil }

func (*schedule) crypt([]byte, *[sectorSize]byte, bool) {}
