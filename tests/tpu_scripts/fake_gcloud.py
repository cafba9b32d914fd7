"""Stands in for gcloud: writes down its arguments and answers from files in the folder $FAKE.

The files states and progress hold one answer a line, and the last one stays; "!text" is an error.
Where there is a folder worker, it is the home of a worker: commands for it are carried out there.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

FAKE = Path(os.environ["FAKE"])
WORKER = FAKE / "worker"


def answer(name):
    lines = (FAKE / name).read_text().splitlines()
    if len(lines) > 1:
        (FAKE / name).write_text("\n".join(lines[1:]))
    if lines[0].startswith("!"):
        sys.exit(f"ERROR: (gcloud) {lines[0][1:]}")
    print(lines[0])


def flag(name):
    return next((x.split("=", 1)[1] for x in sys.argv if x.startswith(f"--{name}=")), "")


def place(text):
    """Returns a path here, or in the home of the worker."""
    return WORKER / text.split(":", 1)[1] if ":" in text else Path(text)


def main():
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    if words[:2] == ["config", "get-value"]:
        print({"compute/zone": "zone-1", "project": "project-1"}[words[2]])
        return 0
    with open(FAKE / "log", "a") as log:
        log.write(json.dumps(sys.argv[1:]) + "\n")
    if "describe" in words:
        answer("states")
    elif words[:2] == ["storage", "rsync"]:
        shutil.copytree(FAKE / "bucket" / Path(words[2]).name, words[3], dirs_exist_ok=True)
    elif "ssh" in words and WORKER.is_dir():
        environment = os.environ | {"HOME": str(WORKER)}
        return subprocess.run(
            ["bash", "-c", flag("command")], cwd=WORKER, env=environment
        ).returncode
    elif "scp" in words and WORKER.is_dir():
        source, target = words[words.index("scp") + 1 :]
        shutil.copy(place(source), place(target))
    elif "ssh" in words and " status " in flag("command"):
        answer("progress")
    elif "create" in words and (FAKE / "worker_again").is_dir():
        (FAKE / "worker_again").rename(WORKER)
    return 0


if __name__ == "__main__":
    sys.exit(main())
