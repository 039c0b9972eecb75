"""The settings of a run that do not change what is trained."""

FREE = frozenset(
    {
        "data",
        "steps",
        "device",
        "compile",
        "cuda_graph",
        "fakes_at_once",
        "cudnn_benchmark",
        "fold",
        "microbatch",
        "log_every",
        "sample_every",
        "samples",
        "logger",
        "checkpoints",
        "on_nan",
        "nan_retries",
        "hang_timeout",
        "eval",
        "monitor",
    }
)
"""Settings, and sections of settings, that change what is shown and kept, or where it is computed.

A run may be resumed with others, and the report takes runs together that differ only in them.
"""
