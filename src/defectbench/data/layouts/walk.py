"""Every file below a folder, once: of use, or with the reason why not.

Symbolic links are followed once. A real folder is read at its own place; a link to it gives the same files a
second place, which a layout takes where it does not take the first. Links out of the folder are followed on
request alone.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from defectbench.util.image_io import is_picture

JUNK_NAMES = frozenset(
    {"@eadir", "@recycle", "#recycle", "#snapshot", "@tmp", "@recently-snapshot", "~snapshot"}
    | {"__macosx", "network trash folder", "temporary items", "icon\r"}
    | {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "albumart.jpg"}
    | {"$recycle.bin", "recycler", "system volume information", "lost+found", "found.000"}
    | {"thumbnails", "thumbs", "_thumbs", "__pycache__"}
    | {".ds_store", ".appledouble", ".thumbnails", ".thumbs", ".thumb", ".@__thumb", ".ipynb_checkpoints"}
    | {
        ".spotlight-v100",
        ".trashes",
        ".fseventsd",
        ".temporaryitems",
        ".picasaoriginals",
        ".snapshot",
        ".zfs",
    }
)
"""Names, case-folded, of what systems, drives and viewers leave among a user's files."""

JUNK, HIDDEN = "left by a system, a drive or a viewer", "hidden"
NO_PICTURE = "not a picture by its name"
NO_FILE = "not a plain file"
NOWHERE = "links that lead nowhere"
OUTSIDE = "links out of the data set; --follow-links reads them"
SEEN = "links to files that are read already"
ANNEX = "pointers of git-annex; get the files: git annex get ."
LFS = "pointers of Git LFS; get the files: git lfs pull"
DVC = "pointers of DVC; get the files: dvc pull"
CLOUD = "placeholders of a cloud drive; make the files available on this machine"
POINTERS = (ANNEX, LFS, DVC, CLOUD)

DATA_SUFFIXES = frozenset({".json", ".csv", ".tsv", ".parquet"})
"""Of tables and annotations that a layout may read."""

_THUMBNAIL = re.compile(r"(?P<stem>.+?)[ _.\-]thumb(?:nail)?s?\.\w+", re.IGNORECASE)
_POINTER_SIZE = 1024
_LFS_STARTS = (b"version https://git-lfs.github.com/spec/", b"version https://hawser.github.com/spec/")


@dataclass(frozen=True)
class Tree:
    """The files below a folder.

    Attributes:
        root: the folder, without links in its path.
        files: what a layout may use, by its place below ``root``: pictures, tables, annotations; sorted.
        unused: what no layout may use, and why.
        aliases: a place that a link gives, and the file that lies there in truth.
        borrowed: places that come from a link to a folder of ``root``; those files have a place of their own.
        problems, notes: about links, pointers and folders that cannot be read; one line each.
    """

    root: Path
    files: tuple[Path, ...]
    unused: Mapping[Path, str]
    aliases: Mapping[Path, Path] = field(default_factory=dict)
    borrowed: frozenset[Path] = frozenset()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """Files below the folder, links to files too; what lies behind followed links out of it as well."""
        return len(self.files) - len(self.borrowed) + len(self.unused)

    @cached_property
    def pictures(self) -> tuple[Path, ...]:
        """Those of the files that are pictures by their names."""
        return tuple(path for path in self.files if is_picture(path))

    @cached_property
    def folders(self) -> frozenset[tuple[str, ...]]:
        """The folders that hold files, at any depth, as names from ``root`` down."""
        lowest = {self.parts(path)[:-1] for path in self.files}
        return frozenset(names[:end] for names in lowest for end in range(1, len(names) + 1))

    @cached_property
    def _composed(self) -> Mapping[str, Path]:
        return {unicodedata.normalize("NFC", str(path)): path for path in self.files}

    def named(self, path: Path) -> Path:
        """Return the file that a table names, in whichever form the disk has its letters."""
        composed = unicodedata.normalize("NFC", str(path))
        return path if path in self._parts else self._composed.get(composed, path)

    @cached_property
    def _parts(self) -> Mapping[Path, tuple[str, ...]]:
        depth = len(self.root.parts)
        return {path: path.parts[depth:] for path in self.files}

    def parts(self, path: Path) -> tuple[str, ...]:
        """Return the names from ``root`` down to one of its files."""
        return self._parts.get(path) or path.relative_to(self.root).parts


def walk(root: Path, follow_links: bool = False) -> Tree:
    """Return every file below ``root``.

    Args:
        root: a folder.
        follow_links: read what links out of ``root`` lead to as well.
    """
    return _Walk(root.resolve(), follow_links).tree()


def shown(path: Path | str) -> str:
    """Return a name as it can be printed: control and undecodable characters as escapes."""
    text = str(path)
    if text.isprintable() or not any(unicodedata.category(char).startswith("C") for char in text):
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def listed(paths: Iterable[Path], root: Path, most: int = 3) -> str:
    """Return the first names below ``root``, and how many more there are."""
    names = sorted(shown(path.relative_to(root)) for path in paths)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


class _Walk:
    """One walk: the folders that are still to be read, and what was found."""

    def __init__(self, root: Path, follow_links: bool) -> None:
        self.root, self.follow_links = root, follow_links
        self.files: list[Path] = []
        self.unused: dict[Path, str] = {}
        self.aliases: dict[Path, Path] = {}
        self.folder_links: list[tuple[Path, Path]] = []
        self.inside = True
        self.refused: list[Path] = []
        self.problems: list[str] = []
        self.visited: set[tuple[int, int]] = set()

    def tree(self) -> Tree:
        """Walk: the folder itself, then what links out of it lead to, then links to its own folders."""
        self._read(self.root)
        done = 0
        while done < len(self.folder_links):  # a link out of it may lead to more of them
            place, target = self.folder_links[done]
            if not target.is_relative_to(self.root):
                self.inside = False
                self._read(place)
            done += 1
        borrowed = self._borrow()
        inner = [link for link, target in self.folder_links if target.is_relative_to(self.root)]
        notes = []
        if inner:
            notes.append(
                f"links to folders of the data set itself ({listed(inner, self.root)}): each file counts once"
            )
        return Tree(
            self.root,
            tuple(sorted([*self.files, *borrowed], key=str)),
            self.unused,
            self.aliases,
            frozenset(borrowed),
            (*self.problems, *self._pointer_problems(), *self._outside_problems()),
            tuple(notes),
        )

    def _read(self, start: Path) -> None:
        """Read a folder to any depth; every real folder once."""
        waiting: list[tuple[Path, str | None]] = [(start, None)]
        while waiting:
            folder, why = waiting.pop()
            try:
                found = folder.stat()
                if (found.st_dev, found.st_ino) in self.visited:
                    continue
                self.visited.add((found.st_dev, found.st_ino))
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError as error:
                self.problems.append(f"{shown(folder)}: this folder cannot be read ({error.strerror})")
                continue
            stems = {Path(entry.name).stem for entry in entries}
            for entry in entries:
                path, reason = Path(entry.path), why or _junk(entry.name, stems)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((path, reason))
                else:
                    self._take(entry, path, reason)

    def _take(self, entry: os.DirEntry[str], path: Path, why: str | None) -> None:
        """Put a file or a link where it belongs."""
        if entry.is_symlink():
            why = self._link(path, why)
            if why == "":
                return
        elif not entry.is_file(follow_symlinks=False):
            why = NO_FILE
        elif why is None or path.suffix.lower() == ".icloud":
            why = _pointer(path)
        if why is None and not is_picture(path) and path.suffix.lower() not in DATA_SUFFIXES:
            why = NO_PICTURE
        if why is None:
            self.files.append(path)
            if not self.inside and path not in self.aliases:
                self.aliases[path] = path.resolve()
        else:
            self.unused[path] = why

    def _link(self, path: Path, why: str | None) -> str | None:
        """Return why a link is not used, None if it is a file, or an empty text for one to a folder."""
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError):
            return ANNEX if _is_annexed(path) else why or NOWHERE
        outside = not target.is_relative_to(self.root)
        if stat.S_ISDIR(mode):
            if why is None and (self.follow_links or not outside):
                self.folder_links.append((path, target))
            elif why is None:
                self.refused.append(path)
            return ""
        if not stat.S_ISREG(mode):
            return why or NO_FILE
        if outside and not self.follow_links:
            return why or OUTSIDE
        if why is None:
            self.aliases[path] = target
        return why

    def _borrow(self) -> list[Path]:
        """Return the second places that links to folders give; of two links to one folder the first does."""
        borrowed: list[Path] = []
        followed: set[Path] = set()
        for link, target in self.folder_links:
            if target in followed or link.is_relative_to(target):
                continue
            followed.add(target)
            for path in self.files:
                if path.is_relative_to(target):
                    place = link / path.relative_to(target)
                    borrowed.append(place)
                    self.aliases[place] = self.aliases.get(path, path)
        return borrowed

    def _pointer_problems(self) -> Iterator[str]:
        """Yield a problem for each kind of pointer that stands for pictures."""
        for kind in POINTERS:
            found = [path for path, why in self.unused.items() if why == kind and _stands_for_picture(path)]
            if found:
                what, remedy = kind.split("; ")
                yield (
                    f"{self.root}: {len(found)} pictures or folders of them are only {what} "
                    f"({listed(found, self.root)}): their contents are not here; {remedy}"
                )

    def _outside_problems(self) -> Iterator[str]:
        found = [*self.refused, *(path for path, why in self.unused.items() if why == OUTSIDE)]
        if found:
            yield (
                f"{self.root}: {len(found)} links lead out of the data set ({listed(found, self.root)}); "
                "give --follow-links to read what they lead to, or copy the files"
            )


def _junk(name: str, stems: Collection[str]) -> str | None:
    """Return why a name is of no use, or None.

    Args:
        stems: of all that lies beside it: ``003_thumb.png`` beside ``003.png`` is a thumbnail.
    """
    folded = name.casefold()
    thumbnail = _THUMBNAIL.fullmatch(name)
    if folded in JUNK_NAMES or folded.startswith(("._", ".trash-")):
        return JUNK
    if thumbnail and thumbnail["stem"] in stems:
        return JUNK
    return HIDDEN if folded.startswith(".") else None


def _is_annexed(link: Path) -> bool:
    """Whether a link that leads nowhere is git-annex's."""
    return "annex/objects/" in str(link.readlink()).replace("\\", "/")


def _pointer(path: Path) -> str | None:
    """Return which tool's pointer stands here in place of a file."""
    if path.suffix.lower() == ".dvc":
        return DVC
    if path.suffix.lower() == ".icloud":
        return CLOUD
    if not is_picture(path):
        return None
    try:
        if not 0 < path.stat().st_size < _POINTER_SIZE:
            return None
        with path.open("rb") as file:
            start = file.read(64)
    except OSError:
        return None
    if start.startswith(_LFS_STARTS):
        return LFS
    return ANNEX if start.startswith((b"/annex/objects/", b"../.git/annex/objects/")) else None


def _stands_for_picture(path: Path) -> bool:
    """Whether a pointer replaces a picture, or a folder of them, that is not here."""
    if path.suffix.lower() == ".dvc":
        named = path.with_suffix("")
        return not named.exists() and (is_picture(named) or named.suffix == "")
    if path.suffix.lower() == ".icloud":
        return is_picture(path.with_name(path.stem.removeprefix(".")))
    return is_picture(path)
