#!/usr/bin/env bash
# Starts a run on all workers, in the background.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Starts a run on all workers of a TPU, in the background, each with a log.

run.sh --name=NAME --flagfile=FILE [flags] [-- flags of the experiment]
  --name=NAME        of the TPU
  --flagfile=FILE    of the experiment, relative to the project
  --output=RUN       name of the run (by default that of the flag file)
  --module=MODULE    what is run (experiments.locomo_grpo)
  --bucket=gs://B    keep results in this bucket, which survives the TPU; needed for more than one
                     worker, and for TPUs that may be taken away
  --resume           resume from the newest checkpoint, if there is one
  --zone, --project  by default those of gcloud's settings
  --dry_run          print the commands and run none
TEXT
}

parse 'name flagfile output module bucket resume zone project --' "$@"
need_tpu
[[ -n $flagfile ]] ||
    fail 'No --flagfile is given. Name one, such as --flagfile=experiments/flags/quickstart.flags.'
[[ -f $root/$flagfile ]] ||
    fail "There is no file $root/$flagfile. Give --flagfile relative to the project's folder."
need_output

arguments=(-m "$module" --flagfile="$flagfile" --output="../$RUNS/$output" --distributed=auto)
[[ $resume == false ]] || arguments+=(--resume)
arguments+=(${rest[@]+"${rest[@]}"})
on_workers all "$WORKER start $output $(quote "${bucket:--}" "${arguments[@]}")"
report "The run $output has started. Its log on worker 0:"
report "  gcloud compute tpus tpu-vm ssh $name $(quote "${place[@]}")" \
    "--command='tail -f memr1_jax_jobs/$output/log'"
