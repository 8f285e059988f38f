
# Presets, names of runs and files; the function of tyro completes commands and flags.
_tiewise() {
  local IFS=$'\n' folder=${TIEWISE_ARTIFACTS:-artifacts} k path names=
  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
  [[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}
  [[ $cur == = ]] && cur=
  for ((k = 1; k < COMP_CWORD - 1; k++)); do
    [[ ${COMP_WORDS[k]} == --artifacts ]] && folder=${COMP_WORDS[k+1]/#=/${COMP_WORDS[k+2]}}
  done
  if [[ $prev == --preset ]]; then
    names=$'@PRESETS@\n'$(compgen -f -X '!*.toml' -- "$cur")
  elif ((COMP_CWORD == 2)) && [[ $command == help ]]; then
    names=$'@COMMANDS@'
  elif ((COMP_CWORD == 2)) && [[ $command == runs && $cur != -* ]]; then
    names=$'list\nshow\nrm'
  elif [[ $prev == --run ]] || {
    ((COMP_CWORD > 1)) && [[ $cur != -* && $prev != -* && ' @OF_RUNS@ ' == *" $command "* ]]
  }; then
    for path in "$folder"/runs/*/config.json; do
      [[ -f $path ]] && path=${path%/config.json} && names+=${path##*/}$'\n'
    done
  else
    [[ $prev == --swap || $prev == --no-swap ]] && COMP_WORDS[COMP_CWORD-1]=-h  # takes no value
    _tyro_tiewise
    [[ -z ${COMPREPLY[0]} ]] && COMPREPLY=()
    return
  fi
  COMPREPLY=($(compgen -W "$names" -- "$cur"))
}
complete -o default -F _tiewise tiewise
