#!/usr/bin/env bash
# Gives a TPU back.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Gives a TPU back, with all that is on its disks. gcloud asks before it does so.

delete.sh --name=NAME [flags]
  --name=NAME        of the TPU
  --direct           it was created with --direct
  --yes              do not ask
  --zone, --project  by default those of gcloud's settings
  --dry_run          print the commands and run none
TEXT
}

parse 'name direct yes zone project' "$@"
need_tpu
if [[ $yes == true ]]; then
    delete_tpu --quiet
else
    delete_tpu
fi
