package chain

import (
	"path"
	"strings"
)

// startShim follows a shim. It starts grubx64.efi beside itself, whatever that is
// (shim 16.1: shim/base starts systemd-boot under that name, grub/base GRUB).
func (r *run) startShim(p *program) {
	if r.shim {
		r.unknown(p.path+": a shim started by a shim was not measured", Other.writes()...)
		return
	}
	r.shim = true
	folder := path.Dir(p.path)
	if strings.EqualFold(path.Base(p.path), "bootx64.efi") && exists(r.esp, folder+"/fbx64.efi") {
		r.unknown(folder+"/fbx64.efi would be started first", Other.writes()...)
	}
	names, err := r.esp.List(folder)
	if err != nil {
		r.unknown(missing(folder, err), Other.writes()...)
	}
	for _, n := range names {
		n = strings.ToLower(n)
		if strings.HasPrefix(n, "revocations") || strings.HasPrefix(n, "shim_certificate") {
			r.unknown(folder+"/"+n+": what shim makes of it was not measured", 4, 7, 14)
		}
	}
	r.start(folder+"/grubx64.efi", "second")
}

// keepShim keeps PCR 14, the lists of machine owner keys. They are the shim's own
// and the machine's, and cannot be told from files (shim/shim: another shim of the
// same version has another list; see Prediction, which refuses that).
func (r *run) keepShim() {
	for _, e := range r.m.Events {
		if e.PCR != 14 || e.Type == evNoAction {
			continue
		}
		if r.shim {
			r.add(kept(e))
		} else {
			r.unknown("something else than a shim writes PCR 14", 14)
		}
	}
}
