# bash completion for cryptsetup-unit
_cryptsetup_unit() {
	local cur=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} names
	names() { sed -n 's/^[[:space:]]*\([^#[:space:]]\{1,\}\)[[:space:]].*/\1/p' /etc/crypttab 2>/dev/null; }
	if ((COMP_CWORD == 1)); then
		mapfile -t COMPREPLY < <(compgen -W "attach attach-all detach status key initrd crypttab help --help --version" -- "$cur")
		return
	fi
	case $verb,$cur in
	attach-all,--crypttab=*) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "${cur#*=}"); return ;;
	attach-all,-*) mapfile -t COMPREPLY < <(compgen -W "--initrd --crypttab= --only-automatic --limit= --device= --discover --help" -- "$cur"); [[ ${COMPREPLY[0]-} != *= ]] || compopt -o nospace; return ;;
	status,-*) mapfile -t COMPREPLY < <(compgen -W "--json=pretty --json=short --help" -- "$cur"); return ;;
	crypttab,*) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "lint set" -- "$cur") || { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }; return ;;
	initrd,*) ((COMP_CWORD == 2)) && mapfile -t COMPREPLY < <(compgen -W "check needs" -- "$cur") || { compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }; return ;;
	attach,*)
		if ((COMP_CWORD > 2)); then compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$cur"); return; fi ;;
	esac
	mapfile -t COMPREPLY < <(compgen -W "$(names)" -- "$cur")
}
complete -F _cryptsetup_unit cryptsetup-unit
