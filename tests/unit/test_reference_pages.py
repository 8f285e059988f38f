"""The reference pages are complete: every command, flag, field, preset and public name."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from reference_pages.commands import describe_command, list_commands, write_commands
from reference_pages.configuration import describe_type, write_configuration, write_toml

import tiewise
from tiewise import cli, config, flags

COMMANDS = list_commands()
PRESETS_PAGE = Path(__file__).parents[2] / "docs" / "presets.md"


def find_options(page):
    """Return the spellings in the headings of a page's entries."""
    headings = re.findall(r"^:::\{option\} (.*)$", page, re.MULTILINE)
    return {word for heading in headings for word in heading.split() if word.startswith("-")}


@pytest.mark.parametrize("name", COMMANDS)
def test_page_has_every_flag(name, capsys):
    """A page has the flags that the command's help prints, and no other."""
    with pytest.raises(SystemExit):
        cli.main([name, "--help-all"])
    entries = re.findall(r"^[|│ ]{1,3}(--?[a-z].*?)(?:  |$)", capsys.readouterr().out, re.MULTILINE)
    words = (word for entry in entries for word in entry.replace(",", " ").split())
    printed = {word for word in words if word.startswith("-")} - {"-h", "--help"}
    found = {word.rstrip(",") for word in find_options(describe_command(name, COMMANDS[name]))}
    assert found == printed


@pytest.mark.parametrize("name", COMMANDS)
def test_page_has_meaning_and_examples(name):
    """Each entry has a text, and each command an example that begins with its name."""
    page = describe_command(name, COMMANDS[name])
    assert not re.search(r"^:::\{option\}.*\n(:::|\n)", page, re.MULTILINE)
    assert f"$ tiewise {name}" in page
    assert not re.search(r"MISSING|None|<class", page)


def test_index_has_every_command(tmp_path):
    """The index names each command, each flag of all commands, and links to pages that exist."""
    write_commands(tmp_path)
    index = (tmp_path / "index.md").read_text("utf-8")
    for name in COMMANDS:
        assert f"[`tiewise {name}`]({name}.md)" in index
        assert (tmp_path / f"{name}.md").is_file()
    assert {word.rstrip(",") for word in find_options(index)} >= {*flags._LEVELS, "--version"}


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Return a folder with the pages of the configuration."""
    folder = tmp_path_factory.mktemp("reference")
    write_configuration(folder)
    return folder


def test_configuration_has_every_field(reference):
    """Each field has one entry with its meaning, default and flag."""
    page = (reference / "configuration.md").read_text("utf-8")
    for section, values in config.RunConfig().to_dict().items():
        for name in values:
            [entry] = re.findall(rf"\{{confval\}} {section}\.{name}\n(.*?)\n:::", page, re.DOTALL)
            assert len(entry.splitlines()[0]) > 8, name
            assert f"<tiewise fit --{name.replace('_', '-')}>" in entry
            is_operational = name in config.OPERATIONAL.get(section, ())
            assert entry.splitlines()[2].endswith("operational") == is_operational


@pytest.mark.parametrize("preset", config.PRESETS)
def test_preset_is_shown_in_full(reference, preset):
    """The file of a preset has every field, and is a preset with the same values."""
    path = reference / "presets" / f"{preset}.toml"
    assert config.load_preset(str(path)) == config.load_preset(preset)
    for section in dataclasses.fields(config.RunConfig):
        for field in dataclasses.fields(getattr(config.RunConfig(), section.name)):
            assert re.search(rf"^(# )?{field.name} ", path.read_text("utf-8"), re.MULTILINE)


def test_presets_are_described():
    """The page of presets has a row, a section and the file of each preset, in the same order."""
    page = PRESETS_PAGE.read_text("utf-8")
    sections = re.findall(r"^## (.*)$", page, re.MULTILINE)
    assert sorted(sections) == sorted(config.PRESETS)
    assert re.findall(r"reference/presets/(\S+)\.toml", page) == sections
    assert re.findall(r"^\| \[`(.*?)`\]", page, re.MULTILINE) == sections
    for preset in config.PRESETS:
        assert f"| [`{preset}`](#{preset}) |" in page
        assert "Needs: " in page.split(f"\n## {preset}\n")[1].split("\n## ")[0]


def test_toml_reads_back():
    """Sections that are written as TOML are read back, apart from values that are not set."""
    sections = {"a": {"text": 'quote " and \\', "many": ["x"], "yes": True}, "b": {"none": None}}
    assert tomllib.loads(write_toml(sections)) == {"a": sections["a"], "b": {}}


@pytest.mark.parametrize(
    ("hint", "kind", "bounds"),
    [
        (config.Count, "integer", "of at least 1"),
        (config.Count | None, "integer", "of at least 1"),
        (config.Seed, "integer", "of at least 0 and below 4,294,967,296"),
        (config.Positive, "number", "above 0"),
        (tuple[str, ...], "list of texts", ""),
    ],
)
def test_types_are_described(hint, kind, bounds):
    """A type is in words, with the bounds that the configuration checks."""
    assert describe_type(hint) == (kind, bounds)


def test_every_public_name_has_a_page(tmp_path):
    """Each public name has a page, listed in the index with the first sentence of its docstring."""
    objects = pytest.importorskip("reference_pages.objects", reason="needs sphinx")
    objects.write_objects(tmp_path)
    index = (tmp_path / "index.rst").read_text("utf-8")
    pages = "".join(path.read_text("utf-8") for path in tmp_path.glob("*.rst"))
    for name in tiewise.__all__:
        assert f":py:obj:`tw.{name} <tiewise.{name}>`" in index
        assert len(re.findall(rf"^\.\. auto\w+:: tiewise\.{name}$", pages, re.MULTILINE)) == 1
        assert len(objects.summarise(name)) > 10, name
    assert "More\n" not in index
    for full_name in objects.list_results().values():
        assert f"\n.. autoclass:: {full_name}\n" in pages


def test_results_of_functions_are_listed():
    """Classes that public functions and methods return are found, imported lazily or not."""
    objects = pytest.importorskip("reference_pages.objects", reason="needs sphinx")
    assert {"Ranking", "RunScores", "Slices", "RewardBenchScores"} <= set(objects.list_results())
    assert not set(objects.list_results()) & set(tiewise.__all__)
