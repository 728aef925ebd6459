"""docs/how-it-is-built.md tells the truth about the package's rooms: there are no others, each imports what the page
says, and none imports one that comes after it."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "tfod_zoo"
ROW = re.compile(r"^\| `(\w+)/` \| [^|]* \| ([^|;]*)", re.MULTILINE)
TABLE = dict(ROW.findall((ROOT / "docs" / "how-it-is-built.md").read_text()))
ROOMS = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}


def imported_rooms(room: str) -> set[str]:
    """Other rooms that its modules import, inside functions too."""
    names = set()
    for path in (PACKAGE / room).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "tfod_zoo":
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.removeprefix("tfod_zoo.").partition(".")[0])
            elif isinstance(node, ast.Import):
                names |= {alias.name.removeprefix("tfod_zoo.").partition(".")[0] for alias in node.names}
    return names & ROOMS - {room}


def test_the_page_has_every_room():
    assert set(TABLE) == ROOMS


def test_rooms_import_what_the_page_says():
    said = {room: {name.strip() for name in text.split(",")} & ROOMS for room, text in TABLE.items()}
    assert TABLE["cli"].strip() == "all"
    assert said | {"cli": set()} == {room: imported_rooms(room) for room in TABLE} | {"cli": set()}


def test_no_room_imports_one_that_comes_after_it():
    order = list(TABLE)
    for room in order:
        later = {name for name in imported_rooms(room) if order.index(name) > order.index(room)}
        assert not later, f"{room} imports {later}"
