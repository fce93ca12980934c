"""The tree of errors: one sentence each, that says what is wrong and what to do.

Everything that is the user's to mend derives from `GraphoptError`; the command line prints its sentence and exits
with 1. Any other exception is a bug of graphopt's own: the command line shows its traceback and exits with 2.
"""

from __future__ import annotations


class GraphoptError(Exception):
    """The root: something that the user can mend. `str(error)` is one sentence without a line break.

    It may have names of a stranger's model in it: what would move the cursor or change colours is a `?`.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() else "?" for c in super().__str__())


class ModelError(GraphoptError):
    """The model cannot be read, or is not valid ONNX."""


class UnsafeModelError(ModelError):
    """The model asks for something that no model may: data outside its folder, sizes that no machine holds."""


class OpsetError(ModelError):
    """The model cannot be brought to the opset that was asked for."""


class SaveError(GraphoptError):
    """The result cannot be written where it was asked for. Nothing was written."""


class PipelineError(GraphoptError):
    """The pipeline's text, a pass, a rule or an option of theirs is unknown or malformed."""


class PluginError(PipelineError):
    """An entry point of the group `graphopt.passes` cannot be loaded."""


class ShapeError(GraphoptError):
    """A shape given by the user does not fit the model's input."""


class InputsError(GraphoptError):
    """The inputs given for the comparison do not fit the model."""


class ExecutionError(GraphoptError):
    """The model cannot be executed, so that its outputs cannot be compared."""


class VerificationError(GraphoptError):
    """Two models that should agree do not."""


class EngineError(GraphoptError):
    """TensorRT is absent, or does not take the model, or cannot build its engine."""
