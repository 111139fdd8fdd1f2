#!/bin/sh
# The partition table may be all that names the root volume. Nobody else would ask for it
# then, so cryptsetup-unit does.
rm -f "${job:-}"
if [ "${root#block:}" = /dev/mapper/root ] && [ ! -s /etc/crypttab ] && ! getargbool 0 rd.auto &&
    [ -z "$(getargs rd.luks.uuid)$(getargs rd.luks.partuuid)$(getargs rd.luks.serial)" ]; then
    [ -d /sys/module/dm_crypt ] || modprobe dm_crypt
    for _ in 1 2 3 4 5; do
        [ ! -e /dev/mapper/root ] && ! /usr/lib/luksmith/cryptsetup-unit attach-all --initrd --discover --limit=15s || break
    done
fi
