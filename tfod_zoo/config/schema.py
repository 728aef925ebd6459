"""The schema of pipeline.config and label maps, in a descriptor pool of our own (spec: pipeline and training, 1 and 2).

A private pool means that no generated code can go stale against the installed protobuf, and that an installed
`object_detection` package, which registers the same names, does no harm.
"""

from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "object_detection.protos"


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    compiled = descriptor_pb2.FileDescriptorSet.FromString(
        files("tfod_zoo.config").joinpath("pipeline_descriptor.pb").read_bytes()
    )
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
    return pool


def message_class(name: str) -> Any:
    """The class of a message of TFOD's schema, e.g. "TrainEvalPipelineConfig" or "StringIntLabelMap"."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"{PACKAGE}.{name}"))


def names() -> set[str]:
    """Every field name and enum value name of the schema, for suggestions."""
    found: set[str] = set()

    def visit(message: Any) -> None:
        found.update(field.name for field in message.fields)
        for enum in message.enum_types:
            found.update(value.name for value in enum.values)
        for nested in message.nested_types:
            visit(nested)

    file = _pool().FindFileContainingSymbol(f"{PACKAGE}.TrainEvalPipelineConfig")
    for message in file.message_types_by_name.values():
        visit(message)
    return found
