"""Checking each rewrite where it happens: what it consumed against what it made, as two small models.

A mismatch takes the application back. A rule may rely on what stands upstream (a Relu that makes its input positive),
so a mismatch is believed only when it stays with more and more of the upstream nodes in both models.
"""

from __future__ import annotations

import gc
import io
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from google.protobuf.message import EncodeError
from onnx import TensorProto

from graphopt.change import Change
from graphopt.cutout import CannotCutError, Cutout, cut_out
from graphopt.errors import ExecutionError, InputsError, ShapeError
from graphopt.graph import Model
from graphopt.model import write_atomically
from graphopt.proof import Withdrawn
from graphopt.rule import Exactness
from graphopt.verification import Exact, Mismatch, Tolerance, compare_small, draw, infer_ranges
from graphopt.verification.draw import Sizes

# Upstream nodes in the cutout: the first number is tried first, more only after a mismatch or where it did not run.
CONTEXTS = (2, 16, 128, 1024)
# Where it does not run with so many, the comparison of the whole model stands for it, if there is to be one.
MOST_TRIED = 16
# One input to compare on for each: free dimensions differ, since a shape that holds for one size must not pass.
SIZES = (Sizes(leading=3, spatial=16, other=5, step=1), Sizes(leading=2, spatial=8, other=6, step=1))

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


@dataclass
class RewriteChecker:
    """A judge of `graphopt.rewrite.Rewriter` that compares every change on random inputs.

    `strict` also takes back what cannot be checked on its own; without it such changes are counted in `unchecked` and
    the comparison of the whole model stands for them. `folder` is where reproducers go, None for nowhere.
    """

    folder: Path | None = None
    strict: bool = False
    seed: int = 0
    checked: int = 0
    unchecked: list[str] = field(default_factory=list)
    withdrawn: list[Withdrawn] = field(default_factory=list)

    def __call__(self, change: Change) -> str | None:
        """None when both sides agree, else the sentence that takes the change back."""
        verdict = self._compare(change)
        gc.collect(1)  # evaluators hold their arrays in cycles, and Python looks for these rarely meanwhile
        if isinstance(verdict, _Found):
            saved = save_reproducer(self.folder, change, verdict.cutout, verdict.mismatch)
            reason = f"its result is wrong: {verdict.mismatch.reason}"
            number = self.checked + len(self.unchecked) + 1
            self.withdrawn.append(Withdrawn(change.rule.name, change.root.label, number, reason, saved))
            return reason
        if verdict is None:
            self.checked += 1
            return None
        self.unchecked.append(f"{change.rule.name} at {change.root.label}: {verdict}")
        return f"it cannot be checked on its own: {verdict}" if self.strict else None

    def _compare(self, change: Change) -> _Found | str | None:
        """What was found wrong, or why nothing could be compared, or None."""
        found: _Found | None = None
        reason = "it changes nothing that is computed"
        if not change.replaced and not change.rewired:
            return None  # nodes or weights that nothing read are gone: there is nothing to compare
        for context in CONTEXTS:
            try:
                cutout = cut_out(change, change_model(change), context)
                mismatch = self._run(change, cutout)
            except (CannotCutError, ExecutionError, InputsError, ShapeError) as error:
                reason = str(error)
                if found is not None and not self.strict:
                    # whether what stands upstream explains the mismatch cannot be told
                    return f"it differs only where what stands upstream is unknown ({reason})"
                if context >= MOST_TRIED and not self.strict:
                    break
            except (MemoryError, EncodeError):  # protobuf's word for having no memory
                return "there is not enough memory to compare it"
            else:
                if mismatch is None:
                    return None
                found = _Found(cutout, mismatch)
                if cutout.is_whole:
                    return found
        return found if found is not None else reason

    def _run(self, change: Change, cutout: Cutout) -> Mismatch | None:
        rng = np.random.default_rng([self.seed, zlib.crc32(change.root.label.encode())])
        ranges = infer_ranges(cutout.before)
        inputs = list(cutout.before.graph.input)
        feeds = [draw(inputs, rng, ranges, sizes) for sizes in SIZES]
        is_exact = change.rule.exactness is Exactness.EXACT and not _has_halves(cutout)
        criterion = Exact() if is_exact else Tolerance()
        return compare_small(cutout.before, cutout.after, feeds, criterion)


@dataclass(frozen=True)
class _Found:
    cutout: Cutout
    mismatch: Mismatch


def _has_halves(cutout: Cutout) -> bool:
    """Whether float16 or bfloat16 enters or leaves.

    ONNX Runtime lacks many of their kernels and computes whole chains in float32, so that where it rounds depends on
    the neighbours of a node: equal bits are more than it gives two equal models.
    """
    graphs = (cutout.before.graph, cutout.after.graph)
    infos = [info for graph in graphs for info in (*graph.input, *graph.output)]
    types = {info.type.tensor_type.elem_type for info in infos}
    types |= {tensor.data_type for graph in graphs for tensor in graph.initializer}
    return not types.isdisjoint(_HALVES)


def change_model(change: Change) -> Model:
    """The model that a change belongs to."""
    if change.replaced:
        return next(iter(change.replaced)).graph.model
    return next(iter(change.rewired)).owner.model


def save_reproducer(folder: Path | None, change: Change, cutout: Cutout, mismatch: Mismatch) -> str | None:
    """Writes `before.onnx`, `after.onnx` and `inputs.npz` as one zip file into `folder`; returns its path."""
    if folder is None:
        return None
    inputs = io.BytesIO()
    np.savez(inputs, **{k: v for k, v in mismatch.feeds.items() if isinstance(v, np.ndarray)})  # type: ignore[arg-type]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("before.onnx", cutout.before.SerializeToString())
        archive.writestr("after.onnx", cutout.after.SerializeToString())
        archive.writestr("inputs.npz", inputs.getvalue())
        archive.writestr("reason.txt", f"{change.rule.name} at {change.root.label}: {mismatch.reason}\n")
    mark = zlib.crc32(change.root.label.encode())
    path = folder / f"{change.rule.name}-{mark:08x}.reproducer.zip"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, packed.getvalue())
    return str(path)
