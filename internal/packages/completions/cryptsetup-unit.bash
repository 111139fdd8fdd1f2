# bash completion for cryptsetup-unit
_cryptsetup_unit() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} option=
	# readline takes words apart at "=".
	if [[ $cur == = ]]; then
		option=${COMP_WORDS[COMP_CWORD - 1]} cur=
	elif ((COMP_CWORD > 2)) && [[ ${COMP_WORDS[COMP_CWORD - 1]} == = ]]; then
		option=${COMP_WORDS[COMP_CWORD - 2]}
	fi
	names() { sed -n 's/^[[:space:]]*\([^#[:space:]]\{1,\}\)[[:space:]].*/\1/p' /etc/crypttab 2>/dev/null; }
	words() { mapfile -t COMPREPLY < <(compgen -W "$*" -- "$cur"); }
	files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }
	if ((COMP_CWORD == 1)); then
		words attach attach-all detach status key initrd crypttab help --help --version
		return
	fi
	case $option in
	--json) words pretty short off; return ;;
	--crypttab | --device | --volume) files; return ;;
	?*) return ;;
	esac
	case $verb,$cur in
	attach-all,-*) words --initrd --crypttab= --only-automatic --limit= --device= --discover --help ;;
	status,-*) words --json= --help ;;
	initrd,-*) words --volume= --json= --crypttab= --initrd --help ;;
	crypttab,*) ((COMP_CWORD == 2)) && words lint set || files ;;
	initrd,*) ((COMP_CWORD == 2)) && words check needs || files ;;
	attach,*) ((COMP_CWORD == 2)) && words "$(names)" || files ;;
	*) words "$(names)" ;;
	esac
	[[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace
}
complete -F _cryptsetup_unit cryptsetup-unit
