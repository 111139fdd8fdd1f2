#!/bin/sh
# In the image this is /sbin/cryptroot-ask; dracut's own is cryptroot-ask.stock beside it.
# It is called for each device when that appears, and dracut's does nothing if the volume
# is mapped by then.
PATH=/usr/sbin:/usr/bin:/sbin:/bin
command -v need_shutdown >/dev/null || . /lib/dracut-lib.sh
/usr/lib/luksmith/first 32 cryptsetup-unit attach-all --initrd --only-automatic --limit=15s --device="$1"
need_shutdown
exec /sbin/cryptroot-ask.stock "$@"
