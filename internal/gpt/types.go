package gpt

import (
	"runtime"
	"slices"
)

// Flags are the attribute bits of a partition (Discoverable Partitions Specification,
// "Partition Attribute Flags").
type Flags uint64

// The flags that the specification defines.
const (
	NoAuto   Flags = 1 << 63 // not to be used unless somebody names it
	ReadOnly Flags = 1 << 60
	GrowFS   Flags = 1 << 59 // the file system grows to the partition's size when it is mounted
)

// Role is what a partition is for.
type Role string

// Roles, by the name that their mapping has: the specification demands /dev/mapper/root
// and so on, and systemd's gpt-auto generator uses the same.
const (
	Root Role = "root"
	Usr  Role = "usr"
	Home Role = "home"
	Srv  Role = "srv"
	Var  Role = "var"
	Tmp  Role = "tmp" // mounted at /var/tmp
	Swap Role = "swap"
)

// Roles are all of them; what comes first is needed first.
var Roles = [...]Role{Root, Usr, Home, Srv, Var, Tmp, Swap}

// Versioned reports whether the newest of several partitions is meant, by their names.
// Of the others the first on the disk is.
func (r Role) Versioned() bool { return r == Root || r == Usr }

// archTypes are the types that differ between architectures, by GOARCH: those that Go
// programs run on. A list, because a map would be made when the program starts.
var archTypes = [...]struct{ arch, root, usr string }{
	{"386", "44479540-f297-41b2-9af7-d131d5f0458a", "75250d76-8cc6-458e-bd66-bd47cc81a812"},
	{"amd64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709", "8484680c-9521-48c6-9c11-b0720656f69e"},
	{"arm", "69dad710-2ce4-4e3c-b16c-21a1d49abed3", "7d0359a3-02b3-4f0a-865c-654403e70625"},
	{"arm64", "b921b045-1df0-41c3-af44-4c6f280d3fae", "b0e01050-ee5f-4390-949a-9101b17104e9"},
	{"loong64", "77055800-792c-4f94-b39a-98c91b762bb6", "e611c702-575c-4cbe-9a46-434fa0bf7e3f"},
	{"mips", "e9434544-6e2c-47cc-bae2-12d6deafb44c", "773b2abc-2a99-4398-8bf5-03baac40d02b"},
	{"mips64", "d113af76-80ef-41b4-bdb6-0cff4d3d4a25", "57e13958-7331-4365-8e6e-35eeee17c61b"},
	{"mipsle", "37c58c8a-d913-4156-a25f-48b1b64e07f0", "0f4868e9-9952-4706-979f-3ed3a473e947"},
	{"mips64le", "700bda43-7a34-4507-b179-eeb93d7a7ca3", "c97c1f32-ba06-40b4-9f22-236061b08aa8"},
	{"ppc64", "912ade1d-a839-4913-8964-a10eee08fbd2", "2c9739e2-f068-46b3-9fd0-01c5a9afbcca"},
	{"ppc64le", "c31c45e6-3f39-412e-80fb-4809c4980599", "15bb03af-77e7-4d4a-b12b-c0d084f7491c"},
	{"riscv64", "72ec70a6-cf74-40e6-bd49-4bda08e8f224", "beaec34b-8442-439b-a40b-984381ed097d"},
	{"s390x", "5eead9a9-fe09-4a1e-a1d7-520d00531306", "8a4f5770-50aa-4ed3-874a-99b710db6fea"},
}

// types are those that all architectures share.
var types = [...]struct {
	uuid string
	role Role
}{
	{"933ac7e1-2eb4-4f13-b844-0e14e2aef915", Home},
	{"3b8f8425-20e0-4f3b-907f-1a25a76f98e8", Srv},
	{"4d21b016-b534-45c2-a9fb-5c16e091fd2d", Var},
	{"7ec6f557-3bc5-4aca-b293-16ef5df639d1", Tmp},
	{"0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", Swap},
}

// Native is the architecture that this program was built for.
const Native = runtime.GOARCH

// Role is what the partition is for; "" if its type is not one of the specification.
// arch is the architecture of root and usr, by GOARCH, "" for the other roles.
func (p *Partition) Role() (role Role, arch string) {
	for _, t := range archTypes {
		switch p.Type {
		case t.root:
			return Root, t.arch
		case t.usr:
			return Usr, t.arch
		}
	}
	for _, t := range types {
		if p.Type == t.uuid {
			return t.role, ""
		}
	}
	return "", ""
}

// emptyName marks a partition that waits for its content (systemd-sysupdate).
const emptyName = "_empty"

// Discoverable reports whether the partition may be used without being named.
func (p *Partition) Discoverable() bool {
	role, _ := p.Role()
	return role != "" && p.Flags&NoAuto == 0 && p.Name != emptyName
}

// Newest are those of a role and architecture that may be used without being named: of
// a versioned role the newest, several if their versions are the same; else all of
// them. They come in the order of their numbers, so that the first one is what the
// specification means.
func Newest(list []Partition, role Role, arch string) (best []Partition) {
	for _, p := range list {
		r, a := p.Role()
		if r != role || a != arch && a != "" || !p.Discoverable() {
			continue
		}
		order := 0
		if role.Versioned() && len(best) > 0 {
			order = CompareVersions(p.Name, best[0].Name)
		}
		switch {
		case order > 0:
			best = []Partition{p}
		case order == 0:
			best = append(best, p)
		}
	}
	return best
}

// Architectures are those that root and usr partitions of a list are for, sorted.
func Architectures(list []Partition) (archs []string) {
	for _, p := range list {
		if _, arch := p.Role(); arch != "" {
			archs = append(archs, arch)
		}
	}
	slices.Sort(archs)
	return slices.Compact(archs)
}
