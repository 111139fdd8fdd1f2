#!/bin/bash
# dracut: has cryptsetup-unit try before the question of dracut or systemd, which stays.

# The folder is the same in the image, because the programs look beside themselves.
lib=/usr/lib/luksmith
switch=/etc/luksmith/boot

check() {
    local fs
    [[ -e ${dracutsysrootdir-}$switch ]] || return 255
    require_binaries $lib/cryptsetup-unit || return 1
    if [[ ${hostonly-} ]] || [[ ${mount_needs-} ]]; then
        for fs in "${host_fs_types[@]}"; do
            [[ $fs == crypto_LUKS ]] && return 0
        done
        return 255
    fi
    return 0
}

depends() {
    echo crypt
}

# needs prints what the volumes call for, by the crypttab of the image if there is one.
needs() {
    local table=${dracutsysrootdir-}/etc/crypttab
    [[ -s $initdir/etc/crypttab ]] && table=$initdir/etc/crypttab
    [[ -e $table ]] || table=/dev/null
    "${dracutsysrootdir-}$lib/cryptsetup-unit" initrd needs --initrd --crypttab="$table"
}

installkernel() {
    local what value
    hostonly='' instmods dm_mod dm_crypt efivarfs
    while read -r what value; do
        case $what in
            module) hostonly='' instmods "$value" ;;
            modules) hostonly='' instmods "=$value" ;;
        esac
    done < <(needs)
}

install() {
    local what value
    inst_multiple sleep $lib/cryptsetup-unit
    inst_simple $lib/first
    inst_simple $switch
    while read -r what value; do
        case $what in
            helper) inst_multiple -o "$lib/$value" ;;
            file) inst_simple "$value" ;;
            alone)
                printf '%s\n' "$value" >>"$initdir/etc/luksmith/alone"
                dinfo "luksmith: ${value#* } has an option that binds cryptsetup-unit alone, so nothing else asks for this volume"
                ;;
            missing) dwarn "luksmith: $value" ;;
        esac
    done < <(needs)
    if dracut_module_included systemd; then
        ln -sf cryptsetup-unit "$initdir$lib/luksmith-generator"
        inst_simple "${systemdutildir:-/usr/lib/systemd}/system-generators/luksmith-generator"
    elif [[ -e $initdir/sbin/cryptroot-ask ]]; then
        mv "$initdir/sbin/cryptroot-ask" "$initdir/sbin/cryptroot-ask.stock"
        inst_script "$moddir/cryptroot-ask.sh" /sbin/cryptroot-ask
        inst_hook initqueue/settled 91 "$moddir/discover.sh"
    fi
    inst_hook emergency 50 "$moddir/emergency.sh"
}
