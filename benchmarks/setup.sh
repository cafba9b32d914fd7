#!/usr/bin/env bash
# Makes a virtual environment for each system, in benchmarks/.venvs or in the folder that is given.
#
#   benchmarks/setup.sh [FOLDER] [PYTHON]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venvs=${1:-$here/.venvs}
python=${2:-python3}

make() { # NAME PACKAGE...
  local name=$1
  shift
  [ -x "$venvs/$name/bin/python" ] || "$python" -m venv "$venvs/$name"
  "$venvs/$name/bin/pip" install --quiet "$@"
  echo "$venvs/$name is ready"
}

make memr1_jax --editable "$here/.."
make tunix google-tunix==0.1.7
# On Linux the plain wheel of torch brings several GB of CUDA. One for CPUs is found with
# PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
make trl torch trl==1.16.0
