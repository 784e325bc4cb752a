import importlib.util
from dataclasses import replace

import pytest

from defectbench import catalog
from defectbench.errors import UsageError


def test_names_and_aliases_are_unique() -> None:
    names = [entry.name for entry in catalog.ENTRIES]
    aliases = [alias for entry in catalog.ENTRIES for alias in entry.aliases]
    assert len(names) == len(set(names))
    assert len(aliases) == len(set(aliases))


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_entry_says_what_a_user_must_know(entry: catalog.Entry) -> None:
    module, colon, name = entry.builder.partition(":")
    assert colon
    assert name.isidentifier()
    assert importlib.util.find_spec(module) is not None
    assert entry.takes(entry.image_size)
    assert entry.takes(128) or entry.sizes_because
    assert entry.multiple_of == 1 or entry.sizes_because
    assert not entry.takes(entry.smallest - 1)
    assert all((entry.source, entry.licence, entry.ends, entry.heat_map))
    assert all(weights.name and weights.source and weights.licence for weights in entry.weights)
    assert bool(entry.weights) == (entry.extra == "train")
    assert entry.patience == 0 or entry.epochs > 0


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_entry_keeps_the_rules_of_its_settings(entry: catalog.Entry) -> None:
    for name, value in entry.settings.items():
        assert entry.rule(name).reads(value), f"{name}: {value!r} is not {entry.rule(name)}"


def test_every_rule_is_of_a_setting_and_says_what_it_allows() -> None:
    own = {name for entry in catalog.ENTRIES for name in entry.settings if name not in entry.rules}
    assert set(catalog.SETTINGS) == own
    assert all(str(rule).startswith(("a ", "the ", "true ")) for rule in catalog.SETTINGS.values())


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_entry_names_its_network_as_its_weights(entry: catalog.Entry) -> None:
    keys = ("architecture", "backbone", "second_backbone", "third_backbone")
    networks = [entry.settings[key] for key in keys if key in entry.settings]
    own = [weights.name for weights in entry.weights]
    # EfficientAD's teacher is no network of timm's, and pictures are none at all.
    assert [name for name in own if "." in name] == networks


@pytest.mark.parametrize("entry", catalog.ENTRIES, ids=lambda entry: entry.name)
def test_matched_pair_shares_its_weights(entry: catalog.Entry) -> None:
    if entry.matched_with not in {other.name for other in catalog.ENTRIES}:
        return
    other = catalog.find(entry.matched_with)
    assert (entry.family, other.family) == ("detector", "classifier")
    assert entry.weights == other.weights


def test_find_names_the_nearest() -> None:
    assert catalog.find("padim").name == "padim"
    with pytest.raises(UsageError, match="did you mean 'patchcore'"):
        catalog.find("pathcore")


def test_sizes_are_said_in_words_with_the_reason() -> None:
    entry = catalog.find("padim")
    assert entry.sizes == "32 px or more"
    patches = replace(entry, smallest=28, multiple_of=14, sizes_because="patches of 14 px")
    assert patches.sizes == "28 px or more, in multiples of 14 (patches of 14 px)"
    assert [size for size in (14, 28, 32, 518) if patches.takes(size)] == [28, 518]
    limited = replace(entry, largest=256)
    assert limited.sizes == "32 to 256 px"
    assert [size for size in (31, 32, 256, 257) if limited.takes(size)] == [32, 256]
    assert replace(entry, smallest=518, largest=518).sizes == "518 px alone"


def test_one_non_commercial_weights_file_flags_the_model() -> None:
    entry = catalog.find("padim")
    free = entry.weights[0]
    bound = replace(free, licence="CC-BY-NC-4.0", commercial=False)
    assert (free.terms, bound.terms) == ("BSD-3-Clause", "CC-BY-NC-4.0 (NON-COMMERCIAL)")
    assert entry.commercial
    assert not replace(entry, weights=(free, bound)).commercial
