#compdef cryptsetup-unit
_cryptsetup_unit_names() {
	local -a names
	names=(${(f)"$(sed -n 's/^[[:space:]]*\([^#[:space:]]\{1,\}\)[[:space:]]\{1,\}\([^[:space:]]*\).*/\1:\2/p' /etc/crypttab 2>/dev/null)"})
	_describe -t volumes volume names
}
_cryptsetup_unit() {
	local -a verbs
	verbs=('attach:unlock a volume and map it' 'attach-all:attach what crypttab and the kernel command line name' 'detach:remove a mapping'
		'status:show a mapping and how it was unlocked' 'key:print the key of a volume' 'initrd:look at images for booting' 'crypttab:look for mistakes in crypttab' 'help:explain a command')
	if ((CURRENT == 2)); then
		_describe -t commands command verbs
		return
	fi
	case ${words[2]} in
	attach) ((CURRENT == 3)) && _cryptsetup_unit_names || _files ;;
	attach-all) _arguments '--initrd[obey rd.luks words too]' '--crypttab=[read this file]:file:_files' '--only-automatic[ask for no passphrase]' '--limit=[wait no longer]:time' '--device=[only this device]:device:_files' '--discover[find root by its partition type]' '*:volume:_cryptsetup_unit_names' ;;
	status) _arguments '--json=[print JSON]:form:(pretty short off)' '*:volume:_cryptsetup_unit_names' ;;
	crypttab) ((CURRENT == 3)) && _values command lint set || _files ;;
	initrd) ((CURRENT == 3)) && _values command check needs || _arguments '--volume=[the volume that has to be opened]:device:_files' '--json=[print JSON]:form:(pretty short off)' '*:image:_files' ;;
	*) _cryptsetup_unit_names ;;
	esac
}
_cryptsetup_unit "$@"
