#!/usr/bin/env bash
# Asks for a TPU and waits until it is ready.
set -euo pipefail
# shellcheck source=tpu_scripts/common.sh
source "$(dirname "$0")/common.sh"

usage() {
    cat <<'TEXT'
Asks for a TPU and waits until it is ready. The same command again continues to wait.

create.sh --name=NAME --type=TYPE [flags]
  --name=NAME        of the TPU, and of its queued resource
  --type=TYPE        accelerator type: v6e-8, v5litepod-16, v5p-8, v4-32, ...
  --spot             cheaper, and may be taken away at any time: see resume.sh
  --runtime=VERSION  software of the TPU VM; follows from the type by default
  --direct           a TPU VM at once or not at all, instead of a queued resource
  --interval=SECONDS between two looks at its state (60)
  --retries=N        times that gcloud may fail to tell the state (3)
  --zone, --project  by default those of gcloud's settings
  --dry_run          print the commands and run none
TEXT
}

parse 'name type spot runtime direct interval retries zone project' "$@"
need_tpu
need_type
ensure_ready
report "The TPU $name is ready. Next: install.sh --name=$name"
