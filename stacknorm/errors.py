"""The exceptions of the library.

StacknormError
├── BundleError      a bundle or a base is missing, altered or malformed: stop, and mend the files
├── LabelError       a label cannot be placed on a label space without guessing: give an explicit map
├── DataError        a row of a user's file is unusable: the message names file, line and problem
├── DeviceError      the device asked for is not there: ask for another
└── PredictionError  the stack gave something that is no prediction (NaN, a wrong count): stop, never a label
"""


class StacknormError(Exception):
    """Anything this library raises on purpose."""


class BundleError(StacknormError):
    """A bundle, or a base it names, cannot be trusted or read."""


class LabelError(StacknormError):
    """A label has no certain place on a label space."""


class DataError(StacknormError):
    """A row of a data file cannot be used."""


class DeviceError(StacknormError):
    """A device that was asked for is not there."""


class PredictionError(StacknormError):
    """A stack produced something that must not be taken for a prediction."""
