"""Names every command and its option record, for the tests that try them all."""

import importlib

COMMANDS = {
    "experiments.ablations": "AblationsConfig",
    "experiments.bench_device": "BenchDeviceConfig",
    "experiments.bench_memory": "BenchMemoryConfig",
    "experiments.bench_rollout": "BenchRolloutConfig",
    "experiments.bench_step": "BenchStepConfig",
    "experiments.evaluate": "TableConfig",
    "experiments.learning": "LearningConfig",
    "experiments.locomo_eval": "EvaluationConfig",
    "experiments.locomo_grpo": "ExperimentConfig",
    "experiments.locomo_ppo": "PPOConfig",
    "experiments.locomo_sft": "SFTConfig",
    "experiments.make_judge": "NanoJudgeConfig",
    "experiments.make_nano": "NanoConfig",
    "experiments.make_nano_agents": "NanoAgentsConfig",
    "experiments.operations": "OperationSampleConfig",
    "experiments.push": "PushConfig",
    "experiments.report": "OutputConfig",
    "experiments.retrieval_recall": "RecallConfig",
    "experiments.wording_variety": "VarietyConfig",
    "tpu_scripts.aot_compile": "AotConfig",
    "tpu_scripts.tpu_fit": "TPUFitConfig",
}
KINDS = {name: getattr(importlib.import_module(name), kind) for name, kind in COMMANDS.items()}
