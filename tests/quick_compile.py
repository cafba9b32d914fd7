"""Compilation that is quick rather than good: tests compile much and compute little.

XLA's optimisations are left out, and so are its fusion emitters for CPUs, which set up a compiler
for each fusion. A train step of the tiny model compiles in 10 seconds with this, in 42 without.
"""

import os

FLAGS = ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1")


def use(devices: int = 0) -> None:
    """Sets the environment, before JAX is imported; `devices` are CPU devices to be had."""
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    flags = os.environ.get("XLA_FLAGS", "").split()
    if devices:
        flags.append(f"--xla_force_host_platform_device_count={devices}")
    os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*FLAGS, *flags]))
