"""What a server answers to a request that it does not carry out."""

from __future__ import annotations


class Refusal(Exception):
    """One sentence for the client, with the HTTP status that goes with it."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
