"""What a user can do wrong, as exceptions that the command line prints as one line.

Each message is one sentence: what is wrong, with which value, and what to do next. A programmer's
mistake is an `assert` or an ordinary exception and keeps its traceback.
"""


class CalltuneError(Exception):
    """A user's mistake, or a machine's, that the user can put right."""


class OptionError(CalltuneError):
    """An option has an impossible value, or two options contradict each other."""


class DataError(CalltuneError):
    """A data file is missing, empty, broken, or not what the stage reads."""


class ModelNotFound(CalltuneError):
    """A model reference or an adapter path leads to nothing that can be loaded."""


class AdapterMismatch(CalltuneError):
    """An adapter was trained for another model."""


class FetchError(CalltuneError):
    """Something could not be fetched, or what came is not what was pinned."""


class AccessDenied(FetchError):
    """A gated dataset or model, and no token with access to it."""


class WorseThanBaseline(CalltuneError):
    """A model was held to a baseline and fell behind it by more than chance would explain."""


class UnusableAnswer(CalltuneError):
    """A model's answer that was to be used is no call, or a wrong one."""


class UnusableSchema(CalltuneError):
    """A JSON Schema that no answer can be held to, or one that leaves no answer at all."""


class OutputError(CalltuneError):
    """A result could not be written: no space, or no permission."""
