"""A fake nvidia-smi: a real program that says of every GPU's memory what a test last told it."""

from __future__ import annotations

import sys
from pathlib import Path

SCRIPT = f"""#!{sys.executable} -IS
import pathlib, sys
assert "--query-gpu=uuid,memory.used" in sys.argv, sys.argv
said = (pathlib.Path(__file__).parent / "said").read_text()
if said == "broken":
    sys.exit("NVIDIA-SMI has failed")
print(said, end="")
"""
MEBIBYTE = 2**20


class FakeDriver:
    """The folder of a fake nvidia-smi, and its file."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._said = folder, folder / "said"
        folder.mkdir()
        tool = folder / "nvidia-smi"
        tool.write_text(SCRIPT)
        tool.chmod(0o755)
        self.says({})

    def says(self, mebibytes: dict[str, int | str]) -> None:
        """From now on; at once, as a reader sees it."""
        new = self.folder / "new"
        new.write_text("".join(f"{uuid}, {used}\n" for uuid, used in mebibytes.items()))
        new.replace(self._said)

    def breaks(self) -> None:
        self._said.write_text("broken")
