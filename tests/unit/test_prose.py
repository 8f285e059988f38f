"""Words that the project does not use in its prose.

The test reads comments, docstrings and other strings, not identifiers.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SIMULATED_TEXTS = ROOT / "src/tiewise/data/simulation"
TEXT_SUFFIXES = {".css", ".jinja", ".md", ".mplstyle", ".toml"}
THIS_FILE = Path(__file__).resolve()

BANNED = re.compile(
    r"""\b(
        dear | foretell | foretold | foresee[ns]? | mend(s|ed)? | thrice | anew | nobody | somebody
        | dealt | witness(es|ed)? | likeliest | stands | stood | beside
        | of\s+no\s+account | in\s+two\s+minds | let\s+go
    )\b | [\u00ab\u00bb]""",
    re.VERBOSE | re.IGNORECASE,
)
LIST = re.compile(r"<!-- banned words -->.*<!-- end of banned words -->", re.DOTALL)
"""The list of banned words in CONTRIBUTING.md."""
OPENING = re.compile(r'(?:#.*\n|\s)*"""\s*(\w+)')
"""The first word of a module docstring."""
OPENERS = {"What", "Whose", "Which", "Who", "Where", "How", "That"}


def name(path):
    return path.relative_to(ROOT).as_posix()


def find_sources():
    """Return the Python files of package, tests and pages."""
    folders = [ROOT / "src", ROOT / "tests", ROOT / "docs"]
    paths = [path for folder in folders for path in sorted(folder.rglob("*.py*"))]
    return [path for path in paths if path.suffix in {".py", ".pyi"} and path != THIS_FILE]


def find_texts():
    """Return the other texts of the package, the pages, and the texts next to README."""
    paths = [path for path in sorted((ROOT / "src").rglob("*")) if path.suffix in TEXT_SUFFIXES]
    texts = [path for path in paths if path.parent != SIMULATED_TEXTS or path.suffix != ".toml"]
    made = {"_build", "reference"}
    pages = [page for page in sorted((ROOT / "docs").rglob("*.md")) if not made & set(page.parts)]
    return [*texts, *pages, *sorted(ROOT.glob("*.md"))]


def may_have_banned(source):
    """Return whether source has a banned word anywhere, also in a name or across two strings."""
    joined = re.sub(r"(['\"])\s*[a-z]*\1", "", re.sub(r"\\[abfnrtv]", " ", source))
    return any(BANNED.search(text) for text in (source, joined))


def read_prose(source):
    """Yield (line, text) for each comment and string of Python source."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def find_banned(parts):
    """Return line and word of each banned word in the parts (line, text) of a file."""
    return sorted(
        (line + text.count("\n", 0, match.start()), match[0])
        for line, text in parts
        for match in BANNED.finditer(text)
    )


@pytest.mark.parametrize("path", find_sources(), ids=name)
def test_source_uses_plain_words(path):
    """No comment or string has a banned word; no module docstring opens with a question word."""
    source = path.read_text(encoding="utf-8")
    if may_have_banned(source):  # parsing a file takes a hundred times longer
        assert find_banned(read_prose(source)) == []
    opening = OPENING.match(source)
    assert opening is None or opening[1] not in OPENERS


@pytest.mark.parametrize("path", find_texts(), ids=name)
def test_text_uses_plain_words(path):
    """No banned word in pages, templates, style sheets and presets, apart from the list of them."""
    text = LIST.sub(lambda found: "\n" * found[0].count("\n"), path.read_text(encoding="utf-8"))
    assert find_banned([(1, text)]) == []


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("# A dear call\nx = 1", [(1, "dear")]),
        ('x = 1\ny = f"It {x} stands\\nhere"', [(2, "stands")]),
        ('"""First line.\n\nOf no\naccount.\n"""', [(3, "Of no\naccount")]),
        ('x = ("of no "\n    f"acc" "ount")', [(1, "of no account")]),
        ("stands = nobody", []),
        ('"side by side"  # besides', []),
    ],
)
def test_only_prose_is_searched(source, words):
    """Comments, strings and f-strings count; identifiers and longer words do not."""
    assert find_banned(read_prose(source)) == words
    assert may_have_banned(source) or not words


def test_private_access_names_version():
    """Each use of another package's private attribute names the version and a reason."""
    lines = [
        line
        for path in sorted(ROOT.glob("src/**/*.py"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if "SLF001" in line
    ]
    assert lines
    reasoned = re.compile(r"# noqa: SLF001 - \w+ \d+(\.\d+)? has no \w+")
    assert [line for line in lines if not reasoned.search(line)] == []
