# Shared by the launchers: flags, sentences for errors, the state of a TPU. Sourced, never run.
# Written for bash 3.2, which macOS still has.
# shellcheck shell=bash
# shellcheck disable=SC2034 # no script uses all of these variables

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
script=$(basename "$0")

# Flags and their defaults; a script names those that it takes.
name='' zone='' project='' type='' runtime='' spot=false direct=false interval=60
git='' ref=HEAD
module=experiments.locomo_grpo flagfile='' output='' bucket='' resume=false
loop=false retries=3
dest='' checkpoints=false yes=false
help=false dry_run=false
rest=()
dry_state=MISSING # what --dry_run takes the TPU's state to be
BOOLEANS=' spot direct resume loop checkpoints yes help dry_run '

# Places on a worker, relative to the home folder.
CODE=memr1_jax
RUNS=memr1_jax_runs
WORKER="bash $CODE/tpu_scripts/worker.sh"

say() { printf '%s\n' "$*" >&2; }

# What has been done, which --dry_run has not.
report() { [[ $dry_run == true ]] || say "$@"; }

fail() {
    say "Error: $*"
    exit 2
}

# parse "names of flags" "$@": sets one variable a flag; what follows -- goes to `rest`.
parse() {
    local allowed=" $1 help dry_run " flag value
    shift
    while (($#)); do
        if [[ $1 == -- ]]; then
            shift
            rest=("$@")
            [[ $allowed == *' -- '* ]] || fail "$script takes nothing after --. See $script --help."
            break
        fi
        [[ $1 == --* ]] || fail "'$1' is not a flag. Write --name=VALUE; see $script --help."
        flag=${1#--}
        value=true
        if [[ $flag == *=* ]]; then
            value=${flag#*=}
            flag=${flag%%=*}
        elif [[ $allowed == *" $flag "* && $BOOLEANS != *" $flag "* ]]; then
            fail "--$flag needs a value. Write --$flag=VALUE."
        fi
        [[ $allowed == *" $flag "* ]] || fail "$script has no flag --$flag. See $script --help."
        if [[ $BOOLEANS == *" $flag "* && $value != true && $value != false ]]; then
            fail "--$flag=$value is neither true nor false. Write --$flag or leave it out."
        fi
        printf -v "$flag" %s "$value"
        shift
    done
    if [[ $help == true ]]; then
        usage
        exit 0
    fi
}

# The TPU's name, and zone and project, which gcloud's own settings may give.
need_tpu() {
    [[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] ||
        fail "--name='$name' is no name for a TPU. Give one in small letters, digits and hyphens," \
            'such as --name=memr1.'
    need_gcloud
    need_setting zone compute/zone us-east5-b
    need_setting project project my-project
    place=(--zone="$zone" --project="$project")
}

need_gcloud() {
    [[ $dry_run == true ]] || command -v gcloud >/dev/null ||
        fail 'gcloud is not installed. Get it from https://cloud.google.com/sdk/docs/install, then' \
            'run gcloud init.'
}

need_setting() {
    local flag=$1 setting=$2 example=$3
    if [[ -z ${!flag} ]]; then
        printf -v "$flag" %s "$(gcloud config get-value "$setting" 2>/dev/null || true)"
    fi
    [[ -n ${!flag} ]] ||
        fail "No $flag is given. Add --$flag, such as --$flag=$example, or set it once with" \
            "'gcloud config set $setting $example'."
}

need_type() {
    [[ -n $type ]] || fail 'No --type is given. Name the TPU to ask for, such as --type=v6e-8.'
    [[ -n $runtime ]] || case $type in
        v6e-*) runtime=v2-alpha-tpuv6e ;;
        v5p-*) runtime=v2-alpha-tpuv5 ;;
        v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
        v[234]-*) runtime=tpu-ubuntu2204-base ;;
        *) fail "--type=$type is of no known kind (v2 to v4, v5litepod, v5p, v6e). Add --runtime with" \
            "the software version for it; 'gcloud compute tpus tpu-vm versions list' shows them." ;;
    esac
}

# A run's name on the workers and in the bucket.
need_output() {
    if [[ -z $output && -n $flagfile ]]; then
        output=${flagfile##*/}
        output=${output%.flags}
    fi
    [[ $output =~ ^[A-Za-z0-9_][A-Za-z0-9._-]*$ ]] ||
        fail "--output='$output' is no name for a run. Give one of letters, digits, dots, hyphens and" \
            'underscores, such as --output=first.'
    bucket=${bucket#gs://}
    bucket=${bucket%/}
    [[ $bucket != */* ]] || fail "--bucket=gs://$bucket has a folder in it. Give the bucket alone."
}

# Words as a shell must be given them.
quote() {
    local word words=''
    for word in "$@"; do
        if [[ ! $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]]; then
            word="'$(printf %s "$word" | sed "s/'/'\\\\''/g")'"
        fi
        words="$words${words:+ }$word"
    done
    printf '%s' "$words"
}

# Runs a command that changes something, or only prints it.
run() {
    if [[ $dry_run == true ]]; then
        printf '%s\n' "$(quote "$@")"
    else
        say "+ $(quote "$@")"
        "$@"
    fi
}

# on_workers 0|all COMMAND: runs a shell command on one worker or on all at once.
on_workers() {
    run gcloud compute tpus tpu-vm ssh "$name" "${place[@]}" --worker="$1" --command="$2"
}

create_tpu() {
    local request=(--accelerator-type="$type")
    [[ $spot == false ]] || request+=(--spot)
    if [[ $direct == true ]]; then
        run gcloud compute tpus tpu-vm create "$name" "${place[@]}" --version="$runtime" \
            "${request[@]}"
    else
        run gcloud compute tpus queued-resources create "$name" "${place[@]}" --node-id="$name" \
            --runtime-version="$runtime" "${request[@]}"
    fi
}

# delete_tpu [--quiet]
delete_tpu() {
    if [[ $direct == true ]]; then
        run gcloud compute tpus tpu-vm delete "$name" "${place[@]}" "$@"
    else
        run gcloud compute tpus queued-resources delete "$name" "${place[@]}" --force "$@"
    fi
}

# Sets `state`: as gcloud says it, MISSING, or UNKNOWN where gcloud could not tell.
read_state() {
    local query=(gcloud compute tpus) complaint
    if [[ $direct == true ]]; then
        query+=(tpu-vm describe "$name" "${place[@]}" '--format=value(state)')
    else
        query+=(queued-resources describe "$name" "${place[@]}" '--format=value(state.state)')
    fi
    if [[ $dry_run == true ]]; then
        quote "${query[@]}"
        printf '\n'
        state=$dry_state
        return
    fi
    complaint=$(mktemp)
    if ! state=$("${query[@]}" 2>"$complaint"); then
        state=MISSING
        if ! grep -qi 'not.\{0,1\}found' "$complaint"; then
            cat "$complaint" >&2
            state=UNKNOWN
        fi
    fi
    rm -f "$complaint"
}

# Asks for the TPU if there is none, again if it was taken away, and waits until it is ready.
ensure_ready() {
    local unknown=0
    while true; do
        read_state
        case $state in
            ACTIVE | READY) return ;;
            MISSING) create_tpu ;;
            SUSPENDED | PREEMPTED | TERMINATED)
                report "The TPU $name was taken away ($state). It is asked for again."
                delete_tpu --quiet
                create_tpu
                ;;
            STOPPED) run gcloud compute tpus tpu-vm start "$name" "${place[@]}" ;;
            FAILED)
                fail "The request for the TPU $name failed, and asking again would fail too. See why" \
                    "with 'gcloud compute tpus queued-resources describe $name --zone=$zone" \
                    "--project=$project', then run delete.sh and create.sh with other flags."
                ;;
            UNKNOWN)
                ((++unknown <= retries)) ||
                    fail "gcloud cannot tell the state of $name; its message stands above."
                ;;
            *) say "The TPU $name is not ready yet ($state)." ;;
        esac
        if [[ $dry_run == true ]]; then
            printf '# and describe again every %s seconds until the TPU is ready\n' "$interval"
            return
        fi
        sleep "$interval"
    done
}
