"""The files of a VOC folder: what its image sets list, and which files a listed name means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from yolo.data.formats.detection import first_names, is_inside
from yolo.data.formats.truth_files import ListedImage
from yolo.data.images import IMAGE_SUFFIXES, is_image
from yolo.errors import UserError
from yolo.files import read_text

EVERY_XML = "*"
ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
XML_SUFFIXES = (".xml",)


class VocFiles:
    """The files below a folder; a name means one whatever its suffix and the case of its letters.

    What a folder holds is looked up once.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._found: dict[PurePosixPath, dict[str, list[str]]] = {}

    def listed(self, image_set: str) -> list[ListedImage]:
        """The images of "2007/trainval" or "*"; named as in "VOC2007/JPEGImages/000005"."""
        root, (year, _, list_name) = self.root, image_set.rpartition("/")
        folder = PurePosixPath(f"VOC{year}" if year else "")
        if not is_inside(image_set) or not (root / folder / ANNOTATIONS).is_dir():
            raise UserError(
                f"{root} has no image set {image_set!r}: there is no folder "
                f"{root / folder / ANNOTATIONS}; {self._offer()}."
            )
        path = root / folder / "ImageSets/Main" / f"{list_name}.txt"
        if list_name == EVERY_XML:
            files = sorted(self._files(folder / ANNOTATIONS).get("", ()))
            lines = [("", n) for n in files if n.lower().endswith(XML_SUFFIXES) and n[0] != "."]
        else:
            text = read_text("the image set", path, remedy=f"; {self._offer()}")
            numbered = enumerate(map(str.strip, text.split("\n")), start=1)
            lines = [(f"{path}, line {number}", line) for number, line in numbered if line]
        if not lines:
            raise UserError(f"{root}: the image set {image_set!r} lists no image; {self._offer()}.")
        return [self._listed_image(folder, where, line) for where, line in lines]

    def _listed_image(self, folder: PurePosixPath, where: str, line: str) -> ListedImage:
        """Of a line, less a path and a suffix where only that leaves a name that has an XML.

        Some lists have the name of the XML behind that of the image.
        """
        path = line.replace("\\", "/")
        image, _, behind = path.rpartition(" ")
        path = image.strip() if image and behind.lower().endswith(XML_SUFFIXES) else path
        names = [_without_suffix(name, XML_SUFFIXES) for name in (line, path)]
        for full in (*names, PurePosixPath(names[1]).name):
            for name in (full, _without_suffix(full, IMAGE_SUFFIXES)):
                if is_inside(name) and (
                    xml := self._find(folder / ANNOTATIONS / name, XML_SUFFIXES)
                ):
                    return ListedImage(str(folder / IMAGES / name), self.root / xml, where)
        if not is_inside(line):
            raise UserError(f"{where}: {line!r} leads out of the data set; name an image in it.")
        missing = self.root / folder / ANNOTATIONS / f"{line}.xml"
        return ListedImage(str(folder / IMAGES / line), missing, where)

    def find_image(self, listed_name: str, file_name: str) -> str | None:
        """An image's file, relative to the root.

        The devkit goes by the name on the list. The XML's <filename> decides between several files,
        and finds the image where none has the listed name; files that were renamed often keep a
        wrong one, and many hold a path on another machine, of which only the name counts.
        """
        listed, turned = PurePosixPath(listed_name), file_name.replace("\\", "/")
        last = PurePosixPath(turned).name
        tried = [name for name in (turned, last) if last and is_inside(name)]
        xml_decides = _without_suffix(last, IMAGE_SUFFIXES) == listed.name
        tried = [*tried, listed.name] if xml_decides else [listed.name, *tried]
        for full in tried:
            for name in (full, _without_suffix(full, IMAGE_SUFFIXES)):
                if found := self._find(listed.parent / name, IMAGE_SUFFIXES):
                    return found
        return next(filter(None, (self._find(listed.parent / full, ()) for full in tried)), None)

    def without_xml(self, image_sets: Sequence[str], known: Iterable[str]) -> list[str]:
        """The images, in folders of which every XML is taken, that are none of the known ones."""
        parts = (image_set.rpartition("/") for image_set in image_sets)
        years = [year for year, _, list_name in parts if list_name == EVERY_XML]
        folders = [PurePosixPath(f"VOC{year}" if year else "", IMAGES) for year in years]
        names = (
            str(folder / name) for folder in folders for name in self._files(folder).get("", ())
        )
        return sorted(set(filter(is_image, names)).difference(known))

    def _find(self, path: PurePosixPath, suffixes: tuple[str, ...]) -> str | None:
        """The file of this name, or one with the first of the suffixes behind it."""

        def unlike(name: str) -> tuple[bool, bool, int]:
            rank = [*suffixes, suffix := PurePosixPath(name).suffix.lower()].index(suffix)
            return name != path.name, not name.startswith(path.name), rank

        files = self._files(path.parent).get(path.name.casefold(), ())
        found = [name for name in files if not suffixes or name.lower().endswith(suffixes)]
        return str(path.parent / min(found, key=unlike)) if found else None

    def _files(self, folder: PurePosixPath) -> dict[str, list[str]]:
        """The files of a folder by name, also by that without suffix, in lower case; all by ""."""
        if folder not in self._found:
            known = self._found[folder] = {}
            with suppress(OSError):  # of a folder that is not there
                for path in (self.root / folder).iterdir():
                    for key in {path.name.casefold(), path.stem.casefold(), ""}:
                        known.setdefault(key, []).append(path.name)
        return self._found[folder]

    def _offer(self) -> str:
        """What may be chosen; lists of single classes ("dog_train") only where no others are."""
        root = self.root
        lists = [*root.glob("ImageSets/Main/*.txt"), *root.glob("VOC*/ImageSets/Main/*.txt")]
        found = [
            "/".join([*path.parts[:-3], path.stem]).removeprefix("VOC")
            for path in sorted(path.relative_to(root) for path in lists)
        ]
        plain = [name for name in found if "_" not in name] or found
        every = f"{EVERY_XML!r} takes every XML of Annotations"
        return f"it has {first_names(plain, 8)}, and {every}" if plain else every


def _without_suffix(name: str, suffixes: tuple[str, ...]) -> str:
    return name[: name.rindex(".")] if name.lower().endswith(suffixes) else name
