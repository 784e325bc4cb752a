"""Hostile YAML is refused at once, with its line; plain YAML is read as PyYAML reads it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import yaml

from defectbench.errors import ConfigurationError, SweepError
from defectbench.runners.chart.values import read_values
from defectbench.sweeps.config import parse_text, read_sweep
from defectbench.util import bounded_yaml

BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
MAPPINGS = "a0: &a0 {k: x}\n" + "".join(
    f"a{n}: &a{n} {{{', '.join(f'{k}: *a{n - 1}' for k in 'abcdefghi')}}}\n" for n in range(1, 9)
)
MERGES = "a0: &a0 {k: x}\n" + "".join(
    f"a{n}: &a{n} {{<<: [{','.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 9)
)
HOSTILE = {
    "lists": BOMB,
    "mappings": MAPPINGS,
    "merges": MERGES,
    "digits": "a: 1\nseeds: " + "1" * 5000,
    "hexadecimal": "a: 1\nseeds: 0x" + "f" * 5000,
    "octal": "a: 1\nseeds: 0" + "7" * 5000,
    "binary": "a: 1\nseeds: 0b" + "1" * 5000,
    "sexagesimal": "a: 1\nseeds: 1" + ":59" * 5000,
    "float": "a: 1\nseeds: 1." + "1" * 5000,
    "bool": "a: 1\nb: !!bool abc",
    "int": 'a: 1\nb: !!int ""',
    "float tag": "a: 1\nb: !!float x",
    "null": "a: 1\nb: !!int [1]",
    "timestamp": "a: 1\nb: !!timestamp x",
    "date": "a: 1\nb: 2024-99-99",
    "binary tag": "a: 1\nb: !!binary \x41",
    "list as a key": "a: 1\n? [a]\n: 1",
    "mapping as a key": "a: 1\n? {a: 1}\n: 1",
    "python": "a: 1\nb: !!python/object/apply:os.system [ls]",
    "set": "a: 1\nb: !!set {a, b}",
    "omap": "a: 1\nb: !!omap [a: 1]",
    "pairs": "a: 1\nb: !!pairs [a: 1]",
    "own": "a: 1\nb: !own 1",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_with_its_line(name: str, tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(SweepError, match=r"^it:[2-9]: not YAML: "):
        parse_text(HOSTILE[name], "it")
    file = tmp_path / "values.yaml"
    file.write_text(HOSTILE[name])
    if name != "date":  # a date is text to Helm
        with pytest.raises(ConfigurationError, match=r"values\.yaml:[2-9]: not YAML: "):
            read_values([file])
    with pytest.raises(SweepError, match=r"(?s)--set-values a=.*the value is not YAML"):
        read_values([], ["a=" + (HOSTILE[name].partition("b: ")[2] or "{" + "0x" + "f" * 5000 + "}")])
    assert time.monotonic() - began < 1


def test_aliases_that_do_not_multiply_are_read() -> None:
    text = "a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}, e: 2}\nf: 2024-01-02\ng: !!str 1\nh: ~\n"
    assert bounded_yaml.load(text) == yaml.safe_load(text)
    assert bounded_yaml.load("") is None


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/full", "/dev/urandom"])
def test_a_device_without_end_is_refused(device: str) -> None:
    began = time.monotonic()
    with pytest.raises(SweepError, match="larger than 1 MiB"):
        read_sweep(Path(device))
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        read_values([Path(device)])
    assert time.monotonic() - began < 1


def test_a_sparse_file_is_refused_and_a_pipe_is_read(tmp_path: Path) -> None:
    huge = tmp_path / "sweep.yaml"
    with huge.open("wb") as file:
        file.truncate(40 << 30)
    with pytest.raises(SweepError, match="larger than 1 MiB"):
        read_sweep(huge)
    reader, writer = os.pipe()
    os.write(writer, b"a: 1\n")
    os.close(writer)
    assert bounded_yaml.read_bounded(Path(f"/dev/fd/{reader}")) == "a: 1\n"
    os.close(reader)
