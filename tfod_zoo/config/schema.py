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


def is_repeated(field: Any) -> bool:
    """Whether a field is a list (or a map)."""
    # protobuf 6.31 brought the property, and in time drops what came before it.
    return field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED


def field_names(full_name: str) -> list[str]:
    """The fields of a message, by its full name as the parser gives it."""
    return [field.name for field in _pool().FindMessageTypeByName(full_name).fields]


def value_names(full_name: str) -> list[str]:
    """The values of an enum, by its full name as the parser gives it."""
    return [value.name for value in _pool().FindEnumTypeByName(full_name).values]


@cache
def owners(field: str) -> list[str]:
    """The messages that have a field of this name, without the package."""
    found = []
    file = _pool().FindFileContainingSymbol(f"{PACKAGE}.TrainEvalPipelineConfig")
    messages = list(file.message_types_by_name.values())
    while messages:
        message = messages.pop(0)
        messages.extend(message.nested_types)
        if field in message.fields_by_name:
            found.append(message.full_name.removeprefix(f"{PACKAGE}."))
    return found
