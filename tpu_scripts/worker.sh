#!/usr/bin/env bash
# The part of the launchers that runs on a worker of a TPU; the other scripts call it through ssh.
#
#   worker.sh install                          Python environment for the project
#   worker.sh start JOB BUCKET|- ARGUMENTS     python ARGUMENTS in the background
#   worker.sh status JOB                       none, running, done, stopped, lost or failed CODE
#   worker.sh stop JOB                         SIGTERM, upon which a run saves and ends
#
# In the home folder: memr1_jax is the code, replaced by every installation; memr1_jax_venv the
# environment; memr1_jax_runs the results, a mounted bucket where there is one; memr1_jax_jobs/JOB the
# log and state of each job.
set -euo pipefail

code=$HOME/memr1_jax
venv=$HOME/memr1_jax_venv
runs=$HOME/memr1_jax_runs

fail() {
    printf 'Error: %s\n' "$*" >&2
    exit 2
}

install() {
    # The software of TPU VMs has Python 3.10; uv brings the one that the project needs.
    python3 -m pip install --quiet --user --upgrade uv
    python3 -m uv venv --quiet --allow-existing --python='>=3.11,<3.14' "$venv"
    python3 -m uv pip install --quiet --python="$venv/bin/python" --editable="${code}[tpu]"
    "$venv/bin/python" -c 'import jax, memr1_jax; print("jax", jax.__version__)'
}

install_gcsfuse() {
    local key=/usr/share/keyrings/cloud.google.asc
    curl --fail --silent --show-error https://packages.cloud.google.com/apt/doc/apt-key.gpg |
        sudo tee "$key" >/dev/null
    echo "deb [signed-by=$key] https://packages.cloud.google.com/apt gcsfuse-$(lsb_release -cs) main" |
        sudo tee /etc/apt/sources.list.d/gcsfuse.list >/dev/null
    sudo apt-get update --quiet=2
    sudo apt-get install --quiet=2 --yes gcsfuse
}

mount_bucket() {
    mkdir -p "$runs"
    if mountpoint --quiet "$runs"; then
        return
    fi
    command -v gcsfuse >/dev/null || install_gcsfuse
    # Renaming is how a checkpoint becomes complete. Nothing is cached of what exists: the workers
    # must see each other's files at once.
    gcsfuse --implicit-dirs --rename-dir-limit=100000 --metadata-cache-ttl-secs=0 "$1" "$runs"
}

# Runs python, passes SIGTERM on to it, and notes how it ended.
supervise() {
    local job=$1 stopped=false interrupted=false status=0 child=''
    shift
    trap 'stopped=true interrupted=true; kill -TERM "$child" 2>/dev/null || true' TERM
    "$venv/bin/python" "$@" &
    child=$!
    while true; do
        interrupted=false
        status=0
        wait "$child" || status=$?
        [[ $interrupted == true ]] || break
    done
    if [[ $stopped == true && ($status == 0 || $status == 143) ]]; then # 143: before it could save
        echo stopped >"$job/end"
    elif ((status)); then
        echo "failed $status" >"$job/end"
    else
        echo 'done' >"$job/end"
    fi
}

status() {
    local job=$1 pid
    if [[ ! -f $job/pid ]]; then
        echo none
        return
    fi
    pid=$(<"$job/pid")
    if [[ -f $job/end ]]; then
        cat "$job/end"
    elif grep --quiet --null-data --line-regexp supervise "/proc/$pid/cmdline" 2>/dev/null; then
        echo running
    elif [[ -f $job/end ]]; then # it ended between the two looks
        cat "$job/end"
    else
        echo lost # killed, or the machine was
    fi
}

start() {
    local job=$1 bucket=$2
    shift 2
    [[ -x $venv/bin/python ]] || fail "There is no Python environment in $venv. Run install.sh first."
    [[ $(status "$job") != running ]] ||
        fail "The run ${job##*/} is already running on $(hostname). Let it end, or stop it."
    mkdir -p "$job" "$runs"
    if [[ $bucket != - ]]; then
        mount_bucket "$bucket"
    fi
    rm -f "$job/end"
    cd "$code"
    nohup setsid bash "$code/tpu_scripts/worker.sh" supervise "$job" "$@" \
        >>"$job/log" 2>&1 </dev/null &
    echo $! >"$job/pid"
    for _ in {1..50}; do # until the new process goes by its own name
        [[ $(status "$job") == lost ]] || break
        sleep 0.1
    done
    echo "started on $(hostname)"
}

stop() {
    local job=$1
    [[ $(status "$job") == running ]] || fail "The run ${job##*/} is not running on $(hostname)."
    kill -TERM "$(<"$job/pid")"
}

action=${1:-}
case $action in
    install) install ;;
    supervise) supervise "${@:2}" ;;
    start | status | stop) "$action" "$HOME/memr1_jax_jobs/$2" "${@:3}" ;;
    *) fail "worker.sh knows install, start, status and stop, not '$action'." ;;
esac
