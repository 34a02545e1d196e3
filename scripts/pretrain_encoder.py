"""Pre-train an encoder: ``python scripts/pretrain_encoder.py --config configs/pretrain/YAML``.

It trains a classifier with the loop of main.py. The ``best.pt`` of its run is what a detector's
``model.encoder.weights`` then names.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from yolo.train.interruption import end_at_once_on_signals, end_process

if __name__ == "__main__":
    end_at_once_on_signals()  # even the imports below take a moment

from yolo.config.command_line import load_config_or_exit, parse_train_arguments
from yolo.train.launched import noted_run

DEFAULT_CONFIG = ROOT / "configs" / "pretrain" / "darknet53_imagenet.yaml"

EXAMPLES = """examples:
  python scripts/pretrain_encoder.py --gpu 0
  python scripts/pretrain_encoder.py --config configs/pretrain/darknet19_imagenet.yaml --gpu 0,1
  python scripts/pretrain_encoder.py --config configs/pretrain/shapes_mobilenet_v3_small.yaml
  python scripts/pretrain_encoder.py --resume logs/first_try
  python main.py --config configs/yolov3/darknet53_coco.yaml \\
      model.encoder.weights=logs/first_try/best.pt
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, load the config, build, train.

    Returns:
        0 done, 1 a failure, 128 + signal when stopped; bad usage or a bad config exits with 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse_train_arguments(
        argv,
        default_config=DEFAULT_CONFIG,
        description="Train an encoder as a classifier, for a detector to start from.",
        examples=EXAMPLES,
    ).going_on_with(noted_run())
    resolved = load_config_or_exit(
        arguments.config, arguments.overrides, task="classify", advice="; main.py trains detectors"
    )
    # torch takes seconds to import: only now that the config has proved right
    from yolo.apps.report.drawing import EvaluationPictures
    from yolo.factory.training import build_trainer
    from yolo.train.command import train

    build = partial(
        build_trainer,
        resolved,
        name=arguments.name,
        resume=arguments.resume,
        pictures=EvaluationPictures(),
        accept_changed_data=arguments.accept_changed_data,
    )
    script = Path(__file__).resolve()
    return train(build, devices=arguments.devices, argv=argv, script=script)


if __name__ == "__main__":
    end_process(main())
