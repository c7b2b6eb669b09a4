"""The house rules that a machine can check."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMANDS = ["lint-imports", "ruff check .", "ruff format --check .", "mypy"]
PACKAGES = ("flows", "tasks", "storage", "rlrf", "tests")


def imports(path: Path) -> set[str]:
    """Every module that a file imports, as dotted names, `module.name` for names out of modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def tree_paths(text: str) -> list[str]:
    """Relative paths that a README's annotated tree names: one per line, nested by indentation, folders with a slash."""
    blocks = [block for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL) if "flows/" in block]
    paths: list[str] = []
    above: list[tuple[int, str]] = []
    for line in blocks[0].splitlines() if blocks else []:
        match = re.match(r"([\s│├└─]*)([\w.\-/]+)", line)
        if match is None or match[2] in {".", "./"}:
            continue
        indent, name = len(match[1]), match[2]
        above = [(depth, folder) for depth, folder in above if depth < indent]
        paths.append("".join(folder for _, folder in above) + name)
        if name.endswith("/"):
            above.append((indent, name))
    return paths


@pytest.mark.parametrize("command", COMMANDS)
def test_the_checkers_find_nothing(command: str) -> None:
    name, *arguments = command.split()
    tool = Path(sys.executable).with_name(name)
    done = subprocess.run([tool, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


def test_flow_modules_keep_their_annotations() -> None:
    """Prefect reads a flow's parameters from its annotations, which must not be strings in a deployment."""
    late = [path.name for path in sources("flows") if "__future__.annotations" in imports(path)]
    assert late == []


def test_tests_use_real_parts() -> None:
    mocked = [path.name for path in sources("tests") if any(name.startswith("unittest") for name in imports(path))]
    assert mocked == []


def test_there_are_sources_to_check() -> None:
    assert all(sources(package) for package in PACKAGES)


def test_the_tree_reader_reads_both_kinds_of_trees() -> None:
    plain = "```text\nflows/          what happens\n    cli.py      the top\nrlrf/\n  backends/\n    local.py\nREADME.md\n```\n"
    drawn = "```\n.\n├── flows/      what happens\n│   └── cli.py\n├── rlrf/\n│   └── backends/\n│       └── local.py\n└── README.md\n```\n"
    wanted = ["flows/", "flows/cli.py", "rlrf/", "rlrf/backends/", "rlrf/backends/local.py", "README.md"]
    assert tree_paths(plain) == tree_paths(drawn) == wanted


def test_the_tree_in_the_readme_matches_the_disk() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if not text.strip():
        pytest.skip("README.md is empty")
    paths = tree_paths(text)
    assert paths, "README.md has no annotated tree (a fenced block that names flows/)"
    assert [path for path in paths if not (ROOT / path).exists()] == []


def proofs(line: str) -> list[tuple[Path, str]]:
    """The tests that a row of the contract names: `folder/test_module::test_name`."""
    return [(ROOT / "tests" / f"{module}.py", name) for module, name in re.findall(r"`([\w/]+)::(test_\w+)`", line)]


def test_every_sentence_of_the_contract_has_a_test() -> None:
    text = (ROOT / "docs" / "resume.md").read_text(encoding="utf-8")
    said = re.sub(r"<!-- reuse table -->.*<!-- /reuse table -->", "", text, flags=re.DOTALL)
    rows = [one for one in said.splitlines() if one.startswith("|") and not one.startswith(("| what holds", "|---"))]
    assert len(rows) > 40
    assert [row for row in rows if not proofs(row)] == []
    missing = [
        f"{path.relative_to(ROOT)}::{name}"
        for path, name in sorted({proof for row in rows for proof in proofs(row)})
        if not path.is_file() or not re.search(rf"^ *def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert missing == []
