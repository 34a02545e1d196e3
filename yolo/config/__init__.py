"""What a YAML may hold, and reading it. Imports no torch: a config error answers at once."""

from yolo.config.errors import ConfigError
from yolo.config.layers import REPOSITORY_ROOT
from yolo.config.load import Resolved, config_from_dict, load_config
from yolo.config.save import resolved_yaml
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
