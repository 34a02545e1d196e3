"""What a YAML may say, and reading it. Imports no torch: a config error answers at once."""

from yolo.config.checking import config_from_dict
from yolo.config.errors import ConfigError
from yolo.config.loading import REPOSITORY_ROOT, Resolved, load_config
from yolo.config.saving import resolved_yaml
from yolo.config.schema import ClassificationConfig, Config, TaskConfig

__all__ = [
    "REPOSITORY_ROOT",
    "ClassificationConfig",
    "Config",
    "ConfigError",
    "Resolved",
    "TaskConfig",
    "config_from_dict",
    "load_config",
    "resolved_yaml",
]
