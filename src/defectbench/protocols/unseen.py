"""Unseen defects: what becomes of a defect type that a classifier was never shown?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from pydantic import Field, field_validator

from defectbench.data.manifest import Manifest
from defectbench.errors import DataError
from defectbench.protocols.base import LEARNERS, Description, Protocol, Split, Splits, generator
from defectbench.protocols.folds import check_size, crossfit, of_label
from defectbench.protocols.groups import cut, shuffled, without_groups_of
from defectbench.util.strict_yaml import distinct

Mode = Literal["one", "all_but_one", "study"]

STUDY = "study"
"""The mode that is the original study's own experiment: not cross-fitted, and no good is tested."""


class Unseen(Protocol):
    """The ``unseen`` protocol.

    Conditions read ``mode/type/tested``: ``one/scratch/unseen`` has learnt scratches and is tested on all
    other types; ``all_but_one/scratch/unseen`` has learnt all others and is tested on scratches. Its
    ``/control`` has learnt as many defects of any type and is tested on the same images. The original study's
    is ``study/scratch/unseen``: the type with most images is learnt, all others are tested without goods.

    Attributes:
        modes: learn ``one`` type, or ``all_but_one``, cross-fitted; or as the original ``study``.
        leave_out: types that are neither learnt nor tested, because they mix others.
    """

    name: ClassVar[str] = "unseen"
    descriptions: ClassVar[tuple[Description, ...]] = (
        Description(
            name,
            "A classifier that has learnt one defect type (one), or all but one (all_but_one), tested on the "
            "goods and the seen or the unseen types. Its control has learnt as many defects of any type. "
            "Mode study is the original study's form: not cross-fitted, and no good is tested.",
        ),
    )
    modes: tuple[Mode, ...] = Field(default=("one", "all_but_one"), min_length=1)
    leave_out: tuple[str, ...] = ("combined",)

    @field_validator("modes", "leave_out")
    @classmethod
    def _once(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse an entry given twice."""
        return distinct(value, "entry")

    def splits(self, manifest: Manifest, split_seed: int, folds: int) -> Splits:
        """Return up to four splits for each fold, mode and type, and one of the mode ``study``.

        Without any defect to learn or to test there is none.
        """
        kinds = tuple(kind for kind in manifest.defect_types if kind not in self.leave_out)
        if len(kinds) < 2:
            raise DataError(
                f"{manifest.category}: {len(kinds)} defect type{'s' * (len(kinds) != 1)} "
                f"({', '.join(kinds) or 'none'}), the unseen protocol needs at least 2"
            )
        crossed = [mode for mode in self.modes if mode != STUDY]
        made = self._crossfit(manifest, split_seed, folds, kinds, crossed) if crossed else Splits(())
        if STUDY not in self.modes:
            return made
        single = study(manifest, split_seed, kinds, self.name)
        return Splits(made.splits + single.splits, made.notes + single.notes)

    def _crossfit(
        self, manifest: Manifest, split_seed: int, folds: int, kinds: tuple[str, ...], modes: Sequence[Mode]
    ) -> Splits:
        """Return the splits of the cross-fitted modes, with a note for each condition that no fold has."""
        training_sets = [
            _TrainingSet(manifest, split_seed, mode, kind, kinds) for mode in modes for kind in kinds
        ]
        parts = crossfit(manifest, split_seed, folds, self.name)
        found = tuple(
            split for fold in parts for training in training_sets for split in training.splits(fold)
        )
        there = {split.condition for split in found}
        wanted = [training.condition(tested) for training in training_sets for tested in ("seen", "unseen")]
        return Splits(found, _notes([name for name in wanted if name not in there]))


def study(manifest: Manifest, split_seed: int, kinds: Sequence[str], protocol: str) -> Splits:
    """Return the original study's split: the type with most images is learnt, all others are tested.

    Three quarters of the type, rounded down, are learnt at four rotations together with all training goods;
    the rest of it validates with all goods of the test part. So no good is left to test, and the tables have
    a recall and no false alarms. Of types with equally many images the first in alphabetical order is learnt.

    Args:
        kinds: the types that are learnt or tested, at least two.
        protocol: whose split it becomes.

    Raises:
        DataError: too few goods.
    """
    check_size(manifest, 1, protocol)
    of_type = {kind: [image for image in manifest.labelled if image.defect_type == kind] for kind in kinds}
    kind = max(sorted(kinds), key=lambda name: len(of_type[name]))
    order = shuffled(of_type[kind], generator(manifest, split_seed, f"unseen/{STUDY}/{kind}"))
    learnt, validation = cut(manifest, order, 0.75)
    if not learnt:
        return Splits((), (f"mode {STUDY}: {kind}, the largest type, has 1 defect: 2 are needed",))
    labelled = {label: [image.id for image in manifest.labelled if image.label == label] for label in (0, 1)}
    goods = without_groups_of(manifest, labelled[0], labelled[1])
    others = [image.id for name in kinds if name != kind for image in of_type[name]]
    split = Split(
        protocol=protocol,
        condition=f"{STUDY}/{kind}/unseen",
        fold=0,
        goods=tuple(sorted(image.id for image in manifest.train)),
        calibration=(),
        defects=learnt,
        tune=tuple(sorted((*goods, *validation))),
        test=tuple(sorted(without_groups_of(manifest, others, order))),
        families=LEARNERS,
        rotate_defects=True,
        setting={"mode": STUDY, "type": kind, "tested": "unseen", "control": 0},
    )
    return Splits((split,))


@dataclass(frozen=True)
class _TrainingSet:
    """What is learnt: in mode ``one`` the type alone, else all types but it."""

    manifest: Manifest
    split_seed: int
    mode: Mode
    kind: str
    kinds: tuple[str, ...]

    @property
    def seen(self) -> frozenset[str]:
        """The types that the classifier learns."""
        return frozenset(name for name in self.kinds if (name == self.kind) == (self.mode == "one"))

    def condition(self, tested: str) -> str:
        """Return the condition's text, as the tables show it."""
        return f"{self.mode}/{self.kind}/{tested}"

    def splits(self, fold: Split) -> Iterator[Split]:
        """Yield the splits of one fold: seen and unseen types, each for the training set and its control."""
        learnt = self._of(fold.defects, self.seen)
        tuned = self._of(fold.tune, self.seen)
        if not learnt:
            return
        goods = of_label(self.manifest, fold.test, 0)
        for tested, types in (("seen", self.seen), ("unseen", frozenset(self.kinds) - self.seen)):
            defects = self._of(fold.test, types)
            if not defects:
                continue
            setting = {"mode": self.mode, "type": self.kind, "tested": tested}
            own = replace(
                fold,
                condition=self.condition(tested),
                defects=learnt,
                tune=self._tune(fold, tuned),
                test=tuple(sorted((*goods, *defects))),
                setting={**setting, "control": 0},
            )
            yield own
            yield replace(
                own,
                condition=f"{own.condition}/control",
                defects=self._any(fold, fold.defects, len(learnt), "pool"),
                tune=self._tune(fold, self._any(fold, fold.tune, len(tuned), "tune")),
                families=LEARNERS,
                setting={**setting, "control": 1},
            )

    def _of(self, names: Sequence[str], types: frozenset[str]) -> tuple[str, ...]:
        """Return those of the names whose type is among ``types``, in order."""
        return tuple(name for name in names if self.manifest.by_id[name].defect_type in types)

    def _tune(self, fold: Split, defects: tuple[str, ...]) -> tuple[str, ...]:
        """Return the tuning images: without a defect that may be shown there is nothing to stop by."""
        return tuple(sorted((*of_label(self.manifest, fold.tune, 0), *defects))) if defects else ()

    def _any(self, fold: Split, names: Sequence[str], number: int, purpose: str) -> tuple[str, ...]:
        """Draw ``number`` defects of any type from ``names``."""
        whole = self._of(names, frozenset(self.kinds))
        # Named by what is learnt: of two types, "one" and "all but the other" are the same training set and
        # need one control.
        training = "+".join(sorted(self.seen))
        rng = generator(self.manifest, self.split_seed, f"unseen/{fold.fold}/{purpose}/{training}")
        return tuple(sorted(shuffled([self.manifest.by_id[name] for name in whole], rng)[:number]))


def _notes(missing: Sequence[str]) -> tuple[str, ...]:
    """Say which conditions no fold has, with an empty list for none."""
    if not missing:
        return ()
    return (f"too few defects for {', '.join(missing)}: no fold has some to learn and others to test",)
