"""The errors a user is meant to read: one sentence each, shown by the command line without a trace."""


class ZooError(Exception):
    """An expected failure; its message says what is wrong, where, and what to do. The command line exits with 1.

    All errors of this package that a caller may want to handle are of this class.

    Example:
      >>> try:
      ...     tfod_zoo.read_pipeline("nowhere.config")
      ... except tfod_zoo.ZooError as error:
      ...     print(error)
      nowhere.config cannot be read (No such file or directory); give the path of a pipeline.config.
    """


class UsageError(ZooError):
    """A call that cannot be right as written (a misspelt name, contradicting flags). The command line exits with 2.

    Example:
      >>> tfod_zoo.generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od", batch_size=0)
      Traceback (most recent call last):
      tfod_zoo.errors.UsageError: batch_size is 0; give 1 or more.
    """


def reason_of(error: Exception) -> str:
    """Another library's error in a few words: of the many that some say, the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
