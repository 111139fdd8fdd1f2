#!/bin/sh
# In the image this is /sbin/cryptroot-ask; dracut's own is cryptroot-ask.stock beside it.
# It is called for each device when that appears, and dracut's does nothing if the volume
# is mapped by then.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
command -v need_shutdown >/dev/null || . /lib/dracut-lib.sh
# Volumes that nobody else may open; dracut calls once for each device.
if [ -s /etc/luksmith/alone ]; then
    while read -r link _; do
        [ "$(readlink -f "$link")" = "$(readlink -f "$1")" ] || continue
        for _ in 1 2 3 4 5; do
            /usr/lib/luksmith/cryptsetup-unit attach-all --initrd --device="$1" </dev/console && break
        done
        need_shutdown
        exit 0
    done </etc/luksmith/alone
fi
/usr/lib/luksmith/first 32 cryptsetup-unit attach-all --initrd --only-automatic --limit=15s --device="$1"
need_shutdown
exec /sbin/cryptroot-ask.stock "$@"
