# fish completion for cryptsetup-unit
function __cryptsetup_unit_names
    sed -n 's/^[[:space:]]*\([^#[:space:]]\{1,\}\)[[:space:]]\{1,\}\([^[:space:]]*\).*/\1\t\2/p' /etc/crypttab 2>/dev/null
end
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a attach -d 'Unlock a volume and map it'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a attach-all -d 'Attach what crypttab and the kernel command line name'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a detach -d 'Remove a mapping'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a status -d 'Show a mapping and how it was unlocked'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a key -d 'Print the key of a volume'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a initrd -d 'Look at images for booting'
complete -c cryptsetup-unit -n __fish_use_subcommand -f -a crypttab -d 'Look for mistakes in crypttab'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach attach-all detach status key' -a '(__cryptsetup_unit_names)'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from crypttab' -a 'lint set'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from initrd' -a 'check needs'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l initrd -d 'Obey rd.luks words too'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l crypttab -r -d 'Read this file'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l only-automatic -d 'Ask for no passphrase'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l limit -x -d 'Wait no longer'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l discover -d 'Find root by its partition type'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from attach-all' -l device -r -d 'Only this device'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from initrd' -l volume -r -d 'The volume that has to be opened'
complete -c cryptsetup-unit -n '__fish_seen_subcommand_from status initrd' -l json -x -a 'pretty short off'
