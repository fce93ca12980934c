"""Arithmetic on elements that are numbers or symbols: what is surely true for every value of the symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from graphopt_passes.constants.symbols import Element, Symbol, Symbols, least_of

Binary = Callable[[Element, Element, Symbols], Element]


def add(a: Element, b: Element, symbols: Symbols) -> Element:
    """a + b."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a + b
    if a == 0:
        return b
    if b == 0:
        return a
    low, other = least_of(a), least_of(b)
    return symbols.expression("Add", _sorted(a, b), None if low is None or other is None else low + other)


def subtract(a: Element, b: Element, symbols: Symbols) -> Element:
    """a - b."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a - b
    if a is b:
        return 0
    return a if b == 0 else symbols.expression("Sub", (a, b))


def multiply(a: Element, b: Element, symbols: Symbols) -> Element:
    """a · b."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a * b
    if a == 0 or b == 0:
        return 0
    if a == 1:
        return b
    if b == 1:
        return a
    low, other = least_of(a), least_of(b)
    known = low is not None and other is not None and low >= 0 and other >= 0
    return symbols.expression("Mul", _sorted(a, b), (low or 0) * (other or 0) if known else None)


def product(elements: Iterable[Element], symbols: Symbols) -> Element:
    """The product of all elements, 1 for none."""
    total: Element = 1
    for element in elements:
        total = multiply(total, element, symbols)
    return total


def divide(a: Element, b: Element, symbols: Symbols) -> Element:
    """a / b of integers, rounded towards zero; what a negative or zero operand gives is left to the run time."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a // b if a >= 0 and b > 0 else symbols.expression("Div", (a, b))
    if b == 1:
        return a
    if isinstance(a, Symbol) and a.op == "Mul" and b in a.operands and symbols.is_count(*a.operands):
        return next((e for e in a.operands if e is not b), b)  # (a · b) / b, of a square too: no run divides by 0
    low = least_of(a)
    known = low is not None and low >= 0 and isinstance(b, int) and b > 0
    return symbols.expression("Div", (a, b), (low or 0) // int(b) if known and not isinstance(b, Symbol) else None)


def modulo(a: Element, b: Element, symbols: Symbols) -> Element:
    """a mod b of integers, with the sign of b where one of them is negative."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol) and a >= 0 and b > 0:
        return a % b
    return symbols.expression("Mod", (a, b))


def remainder(a: Element, b: Element, symbols: Symbols) -> Element:
    """a mod b of integers as `fmod` has it, with the sign of a."""
    low, other = least_of(a), least_of(b)
    if low is not None and low >= 0 and other is not None and other > 0:
        return modulo(a, b, symbols)
    return symbols.expression("Fmod", (a, b))


def maximum(a: Element, b: Element, symbols: Symbols) -> Element:
    """max(a, b)."""
    if a is b:
        return a
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return max(a, b)
    low, other = least_of(a), least_of(b)
    if not isinstance(b, Symbol) and low is not None and low >= b:
        return a
    if not isinstance(a, Symbol) and other is not None and other >= a:
        return b
    bounds = [bound for bound in (low, other) if bound is not None]
    return symbols.expression("Max", _sorted(a, b), max(bounds, default=None))


def minimum(a: Element, b: Element, symbols: Symbols) -> Element:
    """min(a, b)."""
    if a is b:
        return a
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return min(a, b)
    low, other = least_of(a), least_of(b)
    if not isinstance(b, Symbol) and low is not None and low >= b:
        return b
    if not isinstance(a, Symbol) and other is not None and other >= a:
        return a
    return symbols.expression("Min", _sorted(a, b), None if low is None or other is None else min(low, other))


def equal(a: Element, b: Element, symbols: Symbols) -> Element:
    """a == b: true for one symbol, false for numbers below a symbol's bound."""
    if a is b:
        return True
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a == b
    if _below(a, b) or _below(b, a):
        return False
    return symbols.expression("Equal", _sorted(a, b), 0)


def less(a: Element, b: Element, symbols: Symbols) -> Element:
    """a < b."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a < b
    if _below(a, b):
        return True
    if a is b or _at_most(b, a):
        return False
    return symbols.expression("Less", (a, b), 0)


def less_or_equal(a: Element, b: Element, symbols: Symbols) -> Element:
    """a <= b."""
    if not isinstance(a, Symbol) and not isinstance(b, Symbol):
        return a <= b
    if a is b or _at_most(a, b):
        return True
    if _below(b, a):
        return False
    return symbols.expression("LessOrEqual", (a, b), 0)


def both(a: Element, b: Element, symbols: Symbols) -> Element:
    """a and b, of booleans."""
    for one, other in ((a, b), (b, a)):
        if not isinstance(one, Symbol):
            return other if one else False
    return a if a is b else symbols.expression("And", _sorted(a, b), 0)


def either(a: Element, b: Element, symbols: Symbols) -> Element:
    """a or b, of booleans."""
    for one, other in ((a, b), (b, a)):
        if not isinstance(one, Symbol):
            return True if one else other
    return a if a is b else symbols.expression("Or", _sorted(a, b), 0)


def negate(a: Element, symbols: Symbols) -> Element:
    """-a."""
    return -a if not isinstance(a, Symbol) else symbols.expression("Neg", (a,))


def invert(a: Element, symbols: Symbols) -> Element:
    """not a, of booleans."""
    return not a if not isinstance(a, Symbol) else symbols.expression("Not", (a,), 0)


def absolute(a: Element, symbols: Symbols) -> Element:
    """|a|, which is negative for the least integer."""
    low = least_of(a)
    if not isinstance(a, Symbol):
        return abs(a)
    return a if low is not None and low >= 0 else symbols.expression("Abs", (a,), None if a.is_far else 0)


def choose(condition: Element, a: Element, b: Element, symbols: Symbols) -> Element:
    """a where the condition is true, else b."""
    if not isinstance(condition, Symbol):
        return a if condition else b
    if a is b or (not isinstance(a, Symbol) and not isinstance(b, Symbol) and a == b):
        return a
    low, other = least_of(a), least_of(b)
    least = None if low is None or other is None else min(low, other)
    return symbols.expression("Where", (condition, a, b), least)


def _below(a: Element, b: Element) -> bool:
    """Whether the number `a` is below every value of the symbol `b`."""
    low = least_of(b)
    return not isinstance(a, Symbol) and low is not None and a < low


def _at_most(a: Element, b: Element) -> bool:
    """Whether the number `a` is no more than any value of the symbol `b`."""
    low = least_of(b)
    return not isinstance(a, Symbol) and low is not None and a <= low


def _sorted(a: Element, b: Element) -> tuple[Element, Element]:
    """One order for the operands of a commutative operator."""
    return (a, b) if (isinstance(a, Symbol), id(a)) <= (isinstance(b, Symbol), id(b)) else (b, a)


ELEMENTWISE: dict[str, Binary] = {
    "Add": add,
    "Sub": subtract,
    "Mul": multiply,
    "Div": divide,
    "Mod": modulo,
    "Max": maximum,
    "Min": minimum,
    "Equal": equal,
    "Less": less,
    "LessOrEqual": less_or_equal,
    "Greater": lambda a, b, symbols: less(b, a, symbols),
    "GreaterOrEqual": lambda a, b, symbols: less_or_equal(b, a, symbols),
    "And": both,
    "Or": either,
}
UNARY: dict[str, Callable[[Element, Symbols], Element]] = {"Neg": negate, "Not": invert, "Abs": absolute}
COMPARISONS = frozenset({"Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "And", "Or", "Not"})
