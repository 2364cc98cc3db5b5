"""The exceptions for users' mistakes, which the command line prints as one line.

Each message is one sentence: what is wrong, which value, and what to do about it. Bugs are
assertions or other exceptions, and keep their traceback.
"""


class CalltuneError(Exception):
    """A problem that the user can fix; the base of all the others."""


class OptionError(CalltuneError):
    """An option has an impossible value, or two options contradict each other."""


class DataError(CalltuneError):
    """A data file is missing, empty, broken, or not of the expected kind."""


class ModelNotFound(CalltuneError):
    """A model or an adapter does not exist, or cannot be loaded."""


class AdapterMismatch(CalltuneError):
    """An adapter was trained for another model."""


class FetchError(CalltuneError):
    """A download failed, or its digest is not the pinned one."""


class AccessDenied(FetchError):
    """A dataset or model is gated, and there is no token with access to it."""


class WorseThanBaseline(CalltuneError):
    """Results are worse than the baseline, by more than chance would explain."""


class UnusableAnswer(CalltuneError):
    """A model's answer does not parse as calls, or a call does not satisfy its schema."""


class UnusableSchema(CalltuneError):
    """A JSON Schema cannot be enforced while decoding, or nothing satisfies it."""


class OutputError(CalltuneError):
    """A file could not be written: no space, or no permission."""
