#!/usr/bin/env bash
# Brings a run back after its TPU was taken away.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Brings a run back: asks for the TPU again if it was taken away, waits until it is ready, installs the
project if it is not there, and starts the run with --resume unless it is running.

resume.sh --name=NAME --type=TYPE --flagfile=FILE --bucket=gs://B [flags] [-- flags of the experiment]
  --loop             look again every --interval seconds, until the run is complete
  --interval=SECONDS (60)
  --retries=N        failures in a row that are borne: of the run, of gcloud, of the way to the TPU (3)
  All flags of create.sh, install.sh and run.sh, with the values that were given there.
  --dry_run          print the commands for a TPU that was taken away, and run none
TEXT
}

flags='name type spot runtime direct zone project git ref flagfile output module bucket'
parse "$flags loop interval retries --" "$@"
need_tpu
need_type
need_output
dry_state=SUSPENDED
[[ $direct == false ]] || dry_state=PREEMPTED

# Sets `progress` to what worker 0 says of the run, or to "unreachable".
read_progress() {
    local question="$WORKER status $output" answer
    if [[ $dry_run == true ]]; then
        on_workers 0 "$question"
        progress=unreachable
    elif answer=$(on_workers 0 "$question"); then
        progress=${answer##*$'\n'}
    else
        progress=unreachable
    fi
}

[[ -n $bucket ]] ||
    say 'Without --bucket, a run whose TPU was taken away starts from its beginning.'

common=("${place[@]}" --name="$name" --dry_run="$dry_run")

install_project() {
    local flags=(--ref="$ref")
    [[ -z $git ]] || flags+=(--git="$git")
    bash "$root/tpu_scripts/install.sh" "${common[@]}" "${flags[@]}"
}

start_run() {
    bash "$root/tpu_scripts/run.sh" "${common[@]}" --flagfile="$flagfile" --output="$output" \
        --module="$module" --bucket="$bucket" --resume -- ${rest[@]+"${rest[@]}"}
}

failures=0
failed() {
    ((++failures <= retries)) || fail "$*"
    say "$* It is tried again ($failures of $retries)."
}

while true; do
    ensure_ready
    read_progress
    case $progress in
        running) failures=0 ;;
        done)
            say "The run $output is complete. Next: fetch.sh --name=$name --output=$output"
            exit 0
            ;;
        'failed 2')
            fail "The run $output was refused; its log on worker 0 ends with the reason:" \
                "memr1_jax_jobs/$output/log"
            ;;
        unreachable) { install_project && start_run; } || failed "The project could not be started on $name." ;;
        failed*)
            failed "The run $output ended with status ${progress#failed }."
            start_run || failed "The run could not be started on $name."
            ;;
        *) start_run || failed "The run could not be started on $name." ;;
    esac
    if [[ $loop == false || $dry_run == true ]]; then
        exit 0
    fi
    sleep "$interval"
done
