#!/usr/bin/env bash
# Puts the project and its Python environment on all workers.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Puts the project and its Python environment on all workers of a TPU. Results there stay.

install.sh --name=NAME [flags]
  --name=NAME        of the TPU
  --git=URL          clone this repository; by default the folder of these scripts is copied, without
                     .git, .venv, runs and caches
  --ref=REF          branch, tag or commit of --git (HEAD)
  --zone, --project  by default those of gcloud's settings
  --dry_run          print the commands and run none
TEXT
}

parse 'name git ref zone project' "$@"
need_tpu

if [[ -n $git ]]; then
    fetch="rm -rf $CODE && git clone $(quote "$git") $CODE &&"
    fetch="$fetch git -C $CODE fetch origin $(quote "$ref") && git -C $CODE checkout FETCH_HEAD"
else
    archive=${TMPDIR:-/tmp}
    archive=${archive%/}/$name.tar.gz
    run tar --create --gzip --file="$archive" --exclude=.git --exclude=.venv --exclude=./runs \
        --exclude=__pycache__ --exclude='*.egg-info' --directory="$root" .
    run gcloud compute tpus tpu-vm scp "$archive" "$name:$CODE.tar.gz" "${place[@]}" --worker=all
    run rm "$archive"
    fetch="rm -rf $CODE && mkdir $CODE && tar --extract --gzip --file=$CODE.tar.gz --directory=$CODE"
fi
on_workers all "$fetch && $WORKER install"
report "The project is on all workers of $name. Next: run.sh --name=$name --flagfile=FILE"
