"""What may have been meant by an unknown key or option: other places, words of other tools."""

import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from yolo.config.wording import Key, Schema, dotted, joined, one_of, types_of, value_at
from yolo.errors import did_you_mean

WORDS = {
    **dict.fromkeys(("bs", "batch", "batchsize"), "batch_size"),
    **dict.fromkeys(("cfg", "data", "hyp", "yaml"), "config"),
    **dict.fromkeys(("ckpt", "checkpoints", "model", "weight", "weights"), "checkpoint"),
    **dict.fromkeys(("classes", "names", "nc", "num_classes"), "class_names"),
    **dict.fromkeys(("conf_thres", "conf_thresh", "confidence", "score_thr"), "conf"),
    **dict.fromkeys(("device", "devices", "gpus"), "gpu"),
    **dict.fromkeys(("epoch", "epochs", "max_epochs", "num_epochs", "max_iter"), "steps"),
    **dict.fromkeys(("img", "img_size", "imgsz", "input_size"), "image_size"),
    **dict.fromkeys(("iou_thres", "iou_thresh", "nms_thres"), "iou"),
    **dict.fromkeys(("lr", "lr0", "base_lr"), "learning_rate"),
    **dict.fromkeys(("lr_scheduler", "scheduler"), "schedule"),
    **dict.fromkeys(("num_workers", "nworkers"), "workers"),
    **dict.fromkeys(("project", "work_dir", "logdir"), "logs"),
    **dict.fromkeys(("amp", "fp16", "half"), "precision"),
}
"""Of other tools, and what is called so here."""

NEAR_HERE, NEAR_ELSEWHERE = 0.6, 0.85
"""Likeness, 0 to 1, of a name that is proposed: in the same section, in another."""

MOST_PROPOSED = 3
USUAL_IMAGES, USUAL_BATCH = 1000, 64
"""Of a data set in an example, and the default of `training.batch_size`."""


def _places(schema: Schema, above: Key = ()) -> Iterator[tuple[Key, list[Any]]]:
    """Yields every key of a schema, and the types of the section that has it."""
    for option in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        yield from _places(option, above)
    for name, inner in schema.get("properties", {}).items():
        if name != "type":
            yield (*above, name), types_of(schema)
            yield from _places(inner, (*above, name))


def meant_key(key: Key, value: object, schema: Schema, data: Mapping[str, Any]) -> str:
    """' (did you mean 'x'?)' behind an unknown key of a config, or nothing; never what it is."""
    places = list(_places(schema))
    types = sorted({name for place, names in places if place == key for name in names})
    if types:
        return f" (it is a key of the type {one_of(types)})"
    if WORDS.get(str(key[-1]).lower()) == "gpu":
        return " (the device is named on the command line: --gpu 0, --gpu 0,1 or --gpu cpu)"
    near = _nearest(key, value, dict.fromkeys(place for place, _ in places))
    if not near:
        return ""
    is_here = len(near) == 1 and near[0][:-1] == key[:-1]
    names = [repr(near[0][-1])] if is_here else [repr(dotted(place)) for place in near]
    epochs = _steps_of_epochs(str(key[-1]), value, data) if near[0][-1] == "steps" else ""
    return f" (did you mean {joined(names)}?{epochs})"


def _nearest(key: Key, value: object, places: Mapping[Key, None]) -> list[Key]:
    """The keys of the likest name, those that share most sections with the unknown one."""
    name = str(key[-1]).lower()
    names = {name, WORDS.get(name, name)}
    inner = list(value) if isinstance(value, Mapping) else []
    fitting = [p for p in places if not inner or any((*p, part) in places for part in inner)]

    def likeness(place: Key) -> float:
        found = max(SequenceMatcher(None, n, str(place[-1]).lower()).ratio() for n in names)
        return found if found >= (NEAR_HERE if place[:-1] == key[:-1] else NEAR_ELSEWHERE) else 0

    scores = {place: likeness(place) for place in fitting}
    best = max(scores.values(), default=0)
    if not best:  # as in train.batch_size=8
        return _nearest((*key, inner[0]), value[inner[0]], places) if inner else []  # type: ignore[index]
    near = sorted((place for place in fitting if scores[place] == best), key=len)
    shared = {place: sum(map(operator.eq, place, key)) for place in near}
    return [place for place in near if shared[place] == max(shared.values())][:MOST_PROPOSED]


def _steps_of_epochs(word: str, epochs: object, data: Mapping[str, Any]) -> str:
    try:
        number = float(str(epochs)) if "epoch" in word.lower() else 0
    except ValueError:
        number = 0
    if not 0 < number < 1e9:
        return ""
    batch = _count(data, ("training", "batch_size")) or USUAL_BATCH
    images = _count(data, ("data", "train", "images")) or USUAL_IMAGES
    return (
        f" it counts optimizer steps: {number:g} epochs of, for example, {images:,} images at "
        f"training.batch_size {batch} are {math.ceil(number * images / batch):,}"
    )


def _count(data: object, key: Key) -> int | None:
    """A number of a config that may be wrong anywhere."""
    number = value_at(data, key)
    return number if type(number) is int and 0 < number < 2**31 else None


def meant_option(
    option: str, value: str, options: Sequence[str], positions: Sequence[str], schema: Schema | None
) -> str:
    """The same for an unknown option of a command line, which ``value`` follows.

    The command takes the ``options`` and ``positions``, such as "--gpu" and "source", and reads a
    config of that ``schema``, if any.
    """
    key = tuple(option.lstrip("-").replace("-", "_").split("."))
    ours = WORDS.get(key[-1].lower(), key[-1])
    if (wanted := "--" + ours.replace("_", "-")) in options and len(key) == 1:
        return f" (did you mean {wanted!r}?)"
    if ours in positions or key[-1] in positions:
        return f"; write {value} without it"
    if schema is not None:
        places = dict.fromkeys(place for place, _ in _places(schema))
        near = [key] if key in places else _nearest(key, None, places)
        exact = [p for p in near if p[-1] in (ours, key[-1])] or (near if len(key) > 1 else [])
        epochs = _steps_of_epochs(key[-1], value, {})
        if exact or len(key) > 1:
            written = [f"{dotted(place)}={'N' if epochs else value}" for place in exact or [key]]
            return f"; a setting of the config is written {joined(written)}" + (
                epochs and f",{epochs}"
            )
    return did_you_mean(option, options)
