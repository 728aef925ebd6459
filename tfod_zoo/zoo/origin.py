"""Where a model in the store came from, when, and how far it was verified: `tfod_zoo.json` in the model's folder."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from pathlib import Path

import tfod_zoo
from tfod_zoo.zoo.archive import FileFacts
from tfod_zoo.zoo.digests import Digests
from tfod_zoo.zoo.verify import Finding

ORIGIN_NAME = "tfod_zoo.json"
BY_HAND = "unpacked by hand"


@dataclasses.dataclass(frozen=True)
class Origin:
    """A model's papers.

    Attributes:
      model: its zoo name.
      source: the address or file that the archive came from, or `BY_HAND`.
      when: UTC, to the second.
      archive: size and hashes of the archive; None for a folder that a user put there.
      findings: what each level of verification found.
      files: path in the folder -> facts of each file as it was unpacked.
      version: of tfod_zoo.
    """

    model: str
    source: str
    when: str
    archive: Digests | None
    findings: tuple[Finding, ...]
    files: Mapping[str, FileFacts]
    version: str = tfod_zoo.__version__

    @classmethod
    def read(cls, folder: Path) -> Origin | None:
        """Of a model's folder; None when it has none that can be read."""
        try:
            row = json.loads((folder / ORIGIN_NAME).read_text(encoding="utf-8"))
            return cls(
                row["model"], row["source"], row["when"],
                Digests(**row["archive"]) if row["archive"] else None,
                tuple(Finding(**finding) for finding in row["verified"]),
                {name: FileFacts(size, int(crc, 16)) for name, (size, crc) in row["files"].items()},
                row["tfod_zoo"],
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def write(self, folder: Path) -> None:
        row = {
            "model": self.model, "source": self.source, "when": self.when,
            "archive": dataclasses.asdict(self.archive) if self.archive else None,
            "verified": [dataclasses.asdict(finding) for finding in self.findings],
            "files": {name: [facts.size, f"{facts.crc32c:08x}"] for name, facts in self.files.items()},
            "tfod_zoo": self.version,
        }
        (folder / ORIGIN_NAME).write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
