"""Measures speed and memory on this machine; what the figures mean stands in benchmarks/README.md.

Ratios come from rounds in which all that is compared takes turns.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from yolo.config.command_line import Parser
from yolo.errors import did_you_mean, exit_code
from yolo.files import write_or_refuse

CASES = {
    "train-darknet53": "training step of Darknet-53 YOLOv3 at 416 px: precision auto against fp32",
    "train-mobilenet": "the same of MobileNetV3-small at 256 px",
    "train-tiny": "the same of the quickstart's detector at 256 px",
    "detection": "images/s of every model, the network alone and with decoding and NMS",
    "prediction": "Darknet-53 YOLOv3 at 416 px, one image at a time, beside ONNX Runtime",
    "suppression": "threshold and NMS of 8 images x 10,647 boxes x 80 classes",
    "loss": "YOLOv3's loss alone",
    "loader": "training loader on real images: default transforms, mosaic, disk cache, a profile",
    "coco-metric": "COCO evaluation of 200,000 detections",
    "annotations-memory": "memory of COCO's annotations with 0 to 4 loader processes",
    "gpu": "on a GPU: steps, kernels, the floor, memory, evaluation, training with the loader",
}
"""What can be measured; how, benchmarks/cases.py knows, which needs seconds to import."""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure the cases and print each figure at once.

    Returns:
        0 done, 1 a failure that one sentence explains; bad usage exits with 2.
    """
    argv = sys.argv[1:] if argv is None else argv
    arguments = parse(argv)
    return exit_code(lambda: measure(arguments, argv))


def measure(arguments: argparse.Namespace, argv: Sequence[str]) -> None:
    """Print the machine and the figures, and write them if asked to.

    Raises:
        UserError: the machine lacks what was asked for, or the page cannot be written.
    """
    # torch takes seconds to import: only now that the command line has proved right
    from benchmarks.cases import measure_cases
    from benchmarks.figures import Settings, line, markdown
    from benchmarks.machine import describe
    from yolo.train.distributed import one_process

    settings = Settings(
        rounds=arguments.rounds,
        device=one_process(arguments.gpu).device,
        data=arguments.data,
        slow=arguments.slow,
        tiny=arguments.tiny,
        kernels=arguments.kernels,
    )
    machine = describe(settings.device)
    print(*machine, sep="\n", flush=True)
    results = []
    for result in measure_cases(arguments.cases, settings, partial(print, flush=True)):
        print(line(result), flush=True)
        results.append(result)
    if arguments.output is not None:
        command = shlex.join(["python", "scripts/benchmark.py", *argv])
        date = time.strftime("%Y-%m-%d")
        page = markdown(results, command=command, date=date, machine=machine)
        write_or_refuse("the page", arguments.output, page.encode(), remedy="name another place")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line; exits with 2 on one that cannot be measured."""
    cases = "\n".join(f"  {name:<19} {what}" for name, what in CASES.items())
    parser = Parser(description=__doc__ or "", epilog=f"cases:\n{cases}")
    add = parser.add_argument
    add("cases", nargs="*", metavar="CASE", help="what to measure (all that this machine can)")
    add("--rounds", type=int, default=6, help="turns, of which the first is dropped (6)")
    add("--data", type=Path, default=default_data(), help="folder like coco-mini, for the loader")
    add("--output", type=Path, metavar="FILE", help="write the figures as a Markdown page")
    add("--kernels", type=Path, metavar="FILE", help="gpu: append the table of its kernels")
    add("--slow", action="store_true", help="time pycocotools beside hotcoco too: a minute")
    add("--tiny", action="store_true", help="tiny sizes, to see each case run; no figures")
    parser.add_gpu_option(one_for="measuring uses")
    arguments = parser.parse(argv)
    for name in arguments.cases:
        if name not in CASES:
            near = did_you_mean(name, list(CASES))
            parser.error(f"there is no case {name!r}{near}; the cases are {', '.join(CASES)}")
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2, for the first round is dropped")
    parser.check_file(arguments.output, "--output ")
    parser.check_file(arguments.kernels, "--kernels ")
    return arguments


def default_data() -> Path:
    """Where the tests' real images lie, or else COCO as scripts/download_coco.py lays it out."""
    tests = os.environ.get("YOLO_TEST_DATA")
    return Path(tests, "coco-mini") if tests else REPOSITORY / "data" / "coco"


if __name__ == "__main__":
    sys.exit(main())
