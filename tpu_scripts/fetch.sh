#!/usr/bin/env bash
# Brings the results of a run to this machine.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Brings the results of a run to this machine: from the bucket, or without one from worker 0.

fetch.sh --name=NAME --output=RUN [flags]
fetch.sh --bucket=gs://B --output=RUN [flags]
  --output=RUN       name of the run
  --dest=FOLDER      where to (runs); the run becomes a folder in it
  --checkpoints      with its checkpoints, which are large
  --zone, --project  by default those of gcloud's settings
  --dry_run          print the commands and run none
TEXT
}

parse 'name bucket output dest checkpoints zone project' "$@"
need_output
dest=${dest:-runs}

run mkdir -p "$dest/$output"
if [[ -n $bucket ]]; then
    need_gcloud
    exclude=()
    [[ $checkpoints == true ]] || exclude=('--exclude=^checkpoints/.*')
    run gcloud storage rsync "gs://$bucket/$output" "$dest/$output" --recursive \
        ${exclude[@]+"${exclude[@]}"}
else
    need_tpu
    what=$output
    [[ $checkpoints == true ]] || what="--exclude=$output/checkpoints $output"
    on_workers 0 "tar --create --gzip --file=$output.tar.gz --directory=$RUNS $what"
    run gcloud compute tpus tpu-vm scp "$name:$output.tar.gz" "$dest/$output.tar.gz" "${place[@]}" \
        --worker=0
    run tar --extract --gzip --file="$dest/$output.tar.gz" --directory="$dest"
    run rm "$dest/$output.tar.gz"
fi
report "The run is in $dest/$output."
