"""What a page of Markdown holds for a reader who follows it: blocks to paste, command lines, links."""

from __future__ import annotations

import re
import shlex
import unicodedata
from dataclasses import dataclass
from pathlib import Path

_FENCE = re.compile(r"^(```+)([^\n`]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!--\s*not run:(.*?)-->\s*\Z", re.DOTALL)
_HERE_DOCUMENT = re.compile(r"(<<-?\s*(['\"]?)(\w+)\2[^\n]*\n).*?^\s*\3$", re.MULTILINE | re.DOTALL)
_KEYWORDS = {"!", "do", "done", "else", "fi", "for", "if", "then", "time", "while"}
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Block:
    """language: behind the fence; line: the fence's, from 1; not_run: the reason in the comment above, None without."""

    language: str
    text: str
    line: int
    not_run: str | None


@dataclass(frozen=True)
class Page:
    path: Path
    text: str
    blocks: tuple[Block, ...]

    @property
    def prose(self) -> str:
        """Without what is in fences."""
        return _FENCE.sub("", self.text)

    @property
    def needs(self) -> list[str] | None:
        """What the sentence that begins with "You need" names in backquotes; None without such a sentence."""
        found = re.search(r"^You need\b(.*?)(?:\.\s|\n\n|\Z)", self.prose, re.MULTILINE | re.DOTALL)
        return _CODE.findall(found[1]) if found else None

    @property
    def anchors(self) -> set[str]:
        """Of the headings, as GitHub makes them."""
        anchors: dict[str, int] = {}
        for heading in _HEADING.findall(self.prose):
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
            kept = "".join(c for c in words if c in " -_" or unicodedata.category(c)[0] in "LN").replace(" ", "-")
            anchors[kept] = anchors.get(kept, -1) + 1
        return {name if not n else f"{name}-{n}" for name, last in anchors.items() for n in range(last + 1)}

    @property
    def links(self) -> list[str]:
        """Those that stay in the checkout."""
        return [link for link in _LINK.findall(self.prose) if not re.match(r"\w+:", link)]

    @property
    def mentioned_commands(self) -> list[list[str]]:
        """The words behind each `tfod-zoo` in the prose."""
        return [line for text in _CODE.findall(self.prose) for line in zoo_commands(text)]


def read_page(path: Path) -> Page:
    text = path.read_text(encoding="utf-8")
    blocks = []
    for fence in _FENCE.finditer(text):
        comment = _NOT_RUN.search(text[: fence.start()])
        line = text.count("\n", 0, fence.start()) + 1
        blocks.append(Block(fence[2].strip(), fence[3], line, comment[1].strip() if comment else None))
    return Page(path, text, tuple(blocks))


def zoo_commands(script: str) -> list[list[str]]:
    """The words behind every `tfod-zoo` that a shell script runs, quotes taken off and variables left as they are."""
    script = _HERE_DOCUMENT.sub(r"\1", script).replace("\\\n", " ")
    commands = []
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        simple: list[list[str]] = [[]]
        for word in lexer:
            if set(word) <= set("();<>|&"):
                simple.append([])
            else:
                simple[-1].append(word)
        for words in simple:
            while words and (words[0] in _KEYWORDS or re.match(r"\w+=", words[0])):
                words = words[1:]
            if words and words[0].rpartition("/")[2] == "tfod-zoo":
                commands.append(words[1:])
    return commands
