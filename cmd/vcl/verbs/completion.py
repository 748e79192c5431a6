"""vcl completion: scripts for bash, zsh and fish. They ask `vcl __complete`, so they never grow old."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vcl.session import UsageError

BASH = """\
# bash completion for vcl; load it with: source <(vcl completion bash)
_vcl_complete() {
    local line="${COMP_LINE:0:COMP_POINT}" candidate
    local -a words
    read -r -a words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    local current="${words[${#words[@]}-1]}"
    COMPREPLY=()
    while IFS='' read -r candidate; do
        COMPREPLY+=("$candidate")
    done < <(vcl __complete -- "${words[@]:1}" 2>/dev/null)
    # readline breaks words at '=' and ':': take off what it has already
    if [[ "$current" == *[=:]* ]]; then
        local typed="${current%"${current##*[=:]}"}" i
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]="${COMPREPLY[i]#"$typed"}"
        done
    fi
    if [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[/=] ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _vcl_complete vcl
"""

ZSH = """\
#compdef vcl
# zsh completion for vcl; load it with: source <(vcl completion zsh)
_vcl() {
    local -a candidates
    candidates=("${(@f)$(vcl __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ -z "${candidates[*]}" ]]; then
        _files
    else
        compadd -Q -a candidates
    fi
}
if [[ "$funcstack[1]" = "_vcl" ]]; then
    _vcl "$@"
else
    compdef _vcl vcl
fi
"""

FISH = """\
# fish completion for vcl; load it with: vcl completion fish | source
function __vcl_complete
    set -l words (commandline -opc) (commandline -ct)
    vcl __complete -- $words[2..-1] 2>/dev/null
end
complete -c vcl -a '(__vcl_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(shell: Annotated[str, typer.Argument(metavar="bash|zsh|fish")]) -> int:
    """Print a shell completion script.

    Completes verbs, options, types, and the names of objects when the daemon answers.

    \b
    Example:
      source <(vcl completion bash)
      vcl completion bash > /etc/bash_completion.d/vcl
      vcl completion zsh > "${fpath[1]}/_vcl"
      vcl completion fish > ~/.config/fish/completions/vcl.fish
    """
    if shell not in SCRIPTS:
        raise UsageError(f"there is no completion for '{shell}'", cure=f"choose one of {', '.join(SCRIPTS)}")
    sys.stdout.write(SCRIPTS[shell])
    return 0
