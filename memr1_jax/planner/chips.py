"""Capacities and speeds of TPU chips, the table behind fit reports and rooflines, and of GPUs.

Figures are those of the system pages v4, v5e, v5p and v6e of cloud.google.com/tpu/docs: peak
bfloat16 compute, memory and its bandwidth, and bidirectional interconnect bandwidth of a chip. The
page of v4 names no interconnect per chip; it is twice the pod's all-reduce bandwidth over its chips
(1.1 PB/s, 4096), as the two figures are related on the pages of v5e and v6e.
"""

import dataclasses

from memr1_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip; bytes, operations and seconds.

    `usable` is what libtpu's compiler lets a program use of a device's memory. A v4 chip appears to
    it as two devices, each with half.
    """

    name: str
    hbm: int
    usable: int  # of one device
    flops: float  # bfloat16, a second
    bandwidth: float  # of the memory, a second
    interconnect: float  # both directions together, a second
    devices: int = 1

    @property
    def device_flops(self) -> float:
        """Peak bfloat16 operations of one device in a second."""
        return self.flops / self.devices

    @property
    def device_bandwidth(self) -> float:
        """Bytes that one device reads or writes in a second."""
        return self.bandwidth / self.devices


# By the name that libtpu gives the devices. `usable` is the limit in its own out-of-memory message.
CHIPS: dict[str, Chip] = {
    "TPU v4": Chip("v4", 32 * GIB, int(15.25 * GIB), 275e12, 1200e9, 537e9, devices=2),
    "TPU v5 lite": Chip("v5e", 16 * GIB, int(15.75 * GIB), 197e12, 819e9, 400e9),
    "TPU v5": Chip("v5p", 95 * GIB, int(95.73 * GIB), 459e12, 2765e9, 1200e9),
    "TPU v6 lite": Chip("v6e", 32 * GIB, int(31.24 * GIB), 918e12, 1638e9, 800e9),
}


USABLE_ON_GPUS = 0.92  # of a GPU's memory; its driver, JAX and libraries take the rest


def _gpu(name: str, gigabytes: int, flops: float, bandwidth: float, interconnect: float) -> Chip:
    memory = gigabytes * 10**9
    return Chip(name, memory, int(USABLE_ON_GPUS * memory), flops, bandwidth, interconnect)


# By the name that JAX gives them; dense bfloat16 figures of NVIDIA's data sheets. Programs are
# estimated for these, not compiled.
GPUS: dict[str, Chip] = {
    "NVIDIA A100-SXM4-40GB": _gpu("a100-40gb", 40, 312e12, 1555e9, 600e9),
    "NVIDIA A100-SXM4-80GB": _gpu("a100-80gb", 80, 312e12, 2039e9, 600e9),
    "NVIDIA B200": _gpu("b200", 180, 2250e12, 8000e9, 1800e9),
    "NVIDIA H100 80GB HBM3": _gpu("h100", 80, 989e12, 3350e9, 900e9),
    "NVIDIA H100 PCIe": _gpu("h100-pcie", 80, 756e12, 2000e9, 128e9),
    "NVIDIA H200": _gpu("h200", 141, 989e12, 4800e9, 900e9),
    "NVIDIA L4": _gpu("l4", 24, 121e12, 300e9, 64e9),
    "NVIDIA L40S": _gpu("l40s", 48, 362e12, 864e9, 64e9),
}


def gpu_named(name: str) -> Chip | None:
    """Returns the GPU of a short name such as "h200"; None where there is none."""
    return next((chip for chip in GPUS.values() if chip.name == name), None)


def peaks_of(device_kind: str) -> tuple[float, float] | None:
    """Returns a device's peak bfloat16 operations and bytes a second; None where not known."""
    chip = CHIPS.get(device_kind) or GPUS.get(device_kind)
    return chip and (chip.device_flops, chip.device_bandwidth)


def chip_of(device_kind: str) -> Chip:
    """Returns the chip behind a device's kind, such as "TPU v5 lite".

    Raises:
      UserError: the table does not know it.
    """
    if device_kind not in CHIPS:
        raise UserError(
            f"No figures are known for {device_kind}. Choose a --topology of"
            f" {', '.join(chip.name for chip in CHIPS.values())}, or add the chip to"
            " memr1_jax/planner/chips.py."
        )
    return CHIPS[device_kind]
