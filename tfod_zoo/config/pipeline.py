"""Read, merge, override and write pipeline.config (spec: pipeline and training, 1)."""

import contextlib
import difflib
import os
import re
import tempfile
from typing import Any

from etils.epath import Path
from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor

from tfod_zoo.config import schema
from tfod_zoo.errors import ZooError, reason_of

# How text_format words its errors: the place, for some the line itself in quotes, what is wrong.
_POSITION = re.compile(r"^(?P<line>\d+):(?P<column>\d+) : (?:'.*?': (?=[A-Z]))?(?P<what>.*)$", re.DOTALL)
_NO_FIELD = re.compile(r'Message type "(?P<type>[\w.]+)" has no field named "(?P<name>\w+)"')
_NO_VALUE = re.compile(r'Enum type "(?P<type>[\w.]+)" has no value named (?P<name>\w+)')


class PipelineError(ZooError):
    """A pipeline.config, or a change to one, that cannot be read or written."""


def read_pipeline(path_or_text: str | os.PathLike) -> Any:
    """Reads a pipeline.config, TFOD's own or one of this package.

    Example:
      >>> pipeline = tfod_zoo.read_pipeline("model { center_net { num_classes: 90 } } train_config { batch_size: 128 }")
      >>> pipeline.model.center_net.num_classes = 3
      >>> pipeline.train_config.batch_size
      128

    Args:
      path_or_text: a file's path, or the text itself (recognised by a brace or a line break).

    Returns:
      A TrainEvalPipelineConfig message with TFOD's field names, e.g. `p.model.center_net.num_classes`.

    Raises:
      PipelineError: no such file, or the text does not parse; names file, line, column and the nearest known name.
    """
    message = schema.message_class("TrainEvalPipelineConfig")()
    if isinstance(path_or_text, str) and ("{" in path_or_text or "\n" in path_or_text or not path_or_text.strip()):
        return merge_text(message, path_or_text, "the text")
    text = read_text(path_or_text, "a pipeline.config", PipelineError)
    return merge_text(message, text, os.fspath(path_or_text))


def merge_text(message: Any, text: str, source: str = "the fragment") -> Any:
    """Merges a fragment in text format into a message, in place, and returns the message.

    A scalar that occurs again is overwritten, a message merged, a repeated field appended to, another member of a oneof
    replaces the earlier one. Nothing changes when the fragment does not parse.

    Raises:
      PipelineError: it does not parse; names `source`, line, column and the nearest known name.
    """
    fragment = message.__class__()
    try:
        # Merge, not Parse: a scalar may occur twice, and the last one wins.
        text_format.Merge(text, fragment)
    except text_format.ParseError as error:
        raise PipelineError(_explain(error, source, text)) from error
    message.MergeFrom(fragment)
    return message


def _explain(error: text_format.ParseError, source: str, text: str) -> str:
    match = _POSITION.match(str(error))
    place = f"{source}, line {match['line']}, column {match['column']}" if match else source
    what = " ".join((match["what"] if match else str(error)).split()).rstrip(".")
    field, value = _NO_FIELD.search(what), _NO_VALUE.search(what)
    if field:
        return f"{place}: {_no_field(field['type'], field['name'])}"
    if value:
        hint = _nearest(value["name"], schema.value_names(value["type"]), "give one of")
        return f"{place}: {value['name']} is no {_short(value['type'])}; {hint}"
    if match and what == 'Expected "}"' and int(match["line"]) >= len(text.rstrip().splitlines()):
        return f"{place}: {what}; is a block left open?"
    return f"{place}: {what}; correct it there."


def _no_field(message_type: str, name: str) -> str:
    """The sentence for a field that a message does not have: the nearest one, or the block that it belongs in."""
    known = schema.field_names(message_type)
    owners = schema.owners(name)
    # The right name in the wrong block is commoner than two names alike.
    if owners and not difflib.get_close_matches(name, known, n=1, cutoff=0.8):
        hint = f"it is a field of {' and '.join(owners[:3])}."
    else:
        hint = _nearest(name, known, "its fields are")
    return f'{_short(message_type)} has no field "{name}"; {hint}'


def _short(full_name: str) -> str:
    return full_name.rpartition(".")[2]


def _nearest(name: str, known: list[str], otherwise: str) -> str:
    found = difflib.get_close_matches(name.lower(), [each.lower() for each in known], n=1)
    if found:
        return f'did you mean "{next(each for each in known if each.lower() == found[0])}"?'
    return f"{otherwise} {', '.join(known)}."


def apply_override(message: Any, assignment: str) -> None:
    """Sets one field of a message in place.

    Args:
      message: a pipeline message.
      assignment: `path.to.field=value`, e.g. `train_config.batch_size=8`, `eval_input_reader[0].shuffle=false`; a list
        for a repeated field, `a.b=[1, 2]`, replaces it.

    Raises:
      PipelineError: no such field (with the nearest), or a value of the wrong type.
    """
    path, separator, value = assignment.partition("=")
    if not separator or not path.strip():
        raise PipelineError(f'"{assignment}" is not an override; write path.to.field=value.')
    *parents, last = path.strip().split(".")
    for name in parents:
        field, index = _field(message, name, assignment)
        if field.message_type is None:
            raise PipelineError(f'"{assignment}": {field.name} is a value, not a block; end the path there.')
        message = _child(message, field, index, assignment)
    field, index = _field(message, last, assignment)
    if field.message_type is not None:
        raise PipelineError(f'"{assignment}": {field.name} is a block; name a field inside it or merge a fragment.')
    text = value.strip()
    if field.type == FieldDescriptor.TYPE_STRING and not text.startswith(('"', "'", "[")):
        text = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    fresh = message.__class__()
    try:
        text_format.Merge(f"{field.name}: {text}", fresh)
    except text_format.ParseError as error:
        kind = "one of " + ", ".join(field.enum_type.values_by_name) if field.enum_type else _TYPE_NAMES[field.type]
        raise PipelineError(f'"{assignment}": {text} does not fit {field.name}; give {kind}.') from error
    if index is not None:
        getattr(message, field.name)[index] = getattr(fresh, field.name)[0]
        return
    message.ClearField(field.name)
    message.MergeFrom(fresh)


_TYPE_NAMES = {
    FieldDescriptor.TYPE_BOOL: "true or false",
    FieldDescriptor.TYPE_FLOAT: "a number",
    FieldDescriptor.TYPE_DOUBLE: "a number",
    FieldDescriptor.TYPE_INT32: "a whole number",
    FieldDescriptor.TYPE_INT64: "a whole number",
    FieldDescriptor.TYPE_UINT32: "a whole number, 0 or more",
    FieldDescriptor.TYPE_UINT64: "a whole number, 0 or more",
    FieldDescriptor.TYPE_STRING: "a text",
    FieldDescriptor.TYPE_BYTES: "a text",
}


def _field(message: Any, name: str, assignment: str) -> tuple[FieldDescriptor, int | None]:
    """A field of a message by `name` or `name[index]`."""
    match = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", name.strip())
    fields = message.DESCRIPTOR.fields_by_name
    if match is None or match[1] not in fields:
        unknown = match[1] if match else name
        raise PipelineError(f'"{assignment}": {_no_field(message.DESCRIPTOR.full_name, unknown)}')
    field, index = fields[match[1]], int(match[2]) if match[2] else None
    repeated = getattr(message, field.name) if schema.is_repeated(field) else None
    if index is not None and (repeated is None or index >= len(repeated)):
        count = len(repeated) if repeated is not None else "no list"
        raise PipelineError(f'"{assignment}": {field.name} has {count} entries; there is no [{index}].')
    return field, index


def _child(message: Any, field: FieldDescriptor, index: int | None, assignment: str) -> Any:
    value = getattr(message, field.name)
    if not schema.is_repeated(field):
        value.SetInParent()
        return value
    if index is None and len(value) != 1:
        raise PipelineError(f'"{assignment}": {field.name} has {len(value)} entries; say which, {field.name}[0].')
    return value[index or 0]


def pipeline_text(message: Any) -> str:
    """A message in canonical text format, with floats as short as float32 allows."""
    return text_format.MessageToString(message)


def write_pipeline(message: Any, path: str | os.PathLike) -> None:
    """Writes a pipeline.config in one step: an earlier file there survives a failure.

    Example:
      >>> pipeline = tfod_zoo.generate_pipeline("centernet_resnet50_v1_fpn_512x512_coco17_tpu-8", hardware="gpu")
      >>> tfod_zoo.write_pipeline(pipeline, "pipeline.config")

    Args:
      message: TrainEvalPipelineConfig message.
      path: a file, in a folder that is made where it is missing.

    Raises:
      PipelineError: the folder cannot be written, or the disk is full.
    """
    write_text(path, pipeline_text(message))


def read_text(path: str | os.PathLike, what: str, error: type[ZooError]) -> str:
    """A text file on a disk or in an object store.

    Args:
      path: of the file.
      what: the file should be, for the message.
      error: the class of what is raised.

    Raises:
      ZooError: of the class `error`: it cannot be read, or is not UTF-8.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as failure:
        raise error(f"{path} is not a text file (byte {failure.start}); give {what}.") from failure
    except Exception as failure:  # an object store's are TensorFlow's, which this room does not import, or its client's
        raise error(f"{path} cannot be read ({reason_of(failure)}); give the path of {what}.") from failure


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file by a temporary one beside it and a rename.

    Raises:
      PipelineError: it could not be written; the earlier file, if any, is as it was.
    """
    place = Path(path)
    if "://" in str(place):
        _write_to_store(place, text)
        return
    temporary = None
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=place.parent, prefix=f".{place.name}.", delete=False
        ) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, place)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise PipelineError(f"{path} could not be written ({error.strerror}); what was there is unharmed.") from error


def _write_to_store(path: Path, text: str) -> None:
    """An object store shows a file when it is whole, or not at all."""
    try:
        path.write_text(text)
    except Exception as error:  # TensorFlow's, which this room does not import, or another client's
        raise PipelineError(f"{path} could not be written ({reason_of(error)}); give another place.") from error
