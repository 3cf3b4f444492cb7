"""IMPORTS: a program may import what is on a list, and no way around the list is open to it; no model is asked.

Idea: the CODE attack routes arithmetic through a library that the attacker owns. Programs that solve word problems need
only few modules, all known, so any other import is suspect. The program is read as a syntax tree and never run. A name
on the list stands for that module only: ``numpy`` does not include ``numpy.f2py``.

The usual ways around an import statement are closed too: names that run text or find modules (``exec``,
``__import__``, ``globals``), attributes that lead from any object to the interpreter (``__class__``, ``gi_code``), the
modules that allowed modules themselves hold (``random._os``), private attributes, and ``getattr`` with anything but a
plain name. A module may be used only through its attributes and not passed on, so that they can be checked by name.

In CPython a list of forbidden names is best effort. The sandbox contains a program; this defense only keeps it from
being learned from.

Text around the tags is not run, but it is learned: there, lines that import what is not on the list are found too.

If Python cannot parse a program, the defense abstains: the program earns nothing where the same Python runs it. But a
sandbox may know another syntax. So a program that does not parse *and* mentions an import or a dynamic name is
rejected, and so is one that declares an encoding, holds a null character, or is too long or too deep to be read.

Limits: sympy evaluates text (``solve("2*x - 4")``), and such text could import. Programs with sympy are rejected if
they hold a string with ``__`` or ``import`` in it. One that assembles the string from pieces is not seen. Leave sympy
off ``allowed`` if the sandbox lets it import.

Source: hailproof's own.
"""

import ast
import re
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeGuard

from hailproof.defenses.base import TextDefense
from hailproof.errors import ConfigError
from hailproof.parsing import BYTE_ORDER_MARK, code_in_tags, syntax_tree
from hailproof.protocols import Admission
from hailproof.records import Span, Verdict

ALLOWED = (
    "bisect", "calendar", "cmath", "collections", "collections.abc", "copy", "datetime", "decimal", "enum",
    "fractions", "functools", "heapq", "itertools", "math", "numbers", "numpy", "numpy.linalg", "numpy.random",
    "operator", "random", "re", "statistics", "sympy", "sympy.abc", "sympy.solvers", "time", "typing",
)  # fmt: skip
"""Modules that programs for word problems really use, and that neither run text nor touch files by themselves.

``dataclasses`` is not among them: it runs text that it makes of the names of fields, which a program can change.
"""
MAX_SOURCE = 64 * 2**10
"""Characters; the sandboxes run no longer program."""
MAX_FINDINGS = 50
"""Findings of one program that its verdict marks; the score and the reason count all."""

_DYNAMIC_NAMES = frozenset([
    "breakpoint", "compile", "delattr", "eval", "exec", "globals", "help", "locals", "open", "setattr", "vars",
])  # fmt: skip
# Names in allowed modules that evaluate text, read attributes by text, or touch files.
_EVALUATORS = frozenset([
    "CodeType", "DataSource", "ForwardRef", "FunctionType", "_evaluate", "allow_pickle", "attrgetter", "cffi",
    "fromfile", "fromregex", "genfromtxt", "get_type_hints", "import_module", "lambdify", "lazy_function", "loadtxt",
    "make_dataclass", "memmap", "methodcaller", "parse_expr", "recfromcsv", "recfromtxt", "savetxt", "savez",
    "savez_compressed", "singledispatch", "singledispatchmethod", "sympify", "tofile", "update_wrapper",
])  # fmt: skip
_FORBIDDEN_NAMES = _DYNAMIC_NAMES | _EVALUATORS
# Attributes that lead to frames, code and classes, and, whatever underscores stand before them, modules in modules.
_FORBIDDEN_ATTRIBUTES = _EVALUATORS | {
    "breakpoint", "delattr", "eval", "exec", "f_back", "f_builtins", "f_code", "f_generator", "f_globals", "f_locals",
    "f_trace", "getattr", "globals", "locals", "mro", "obj", "setattr", "vars",
}  # fmt: skip
_FORBIDDEN_STARTS = ("ag_", "co_", "cr_", "gi_", "tb_")
_MODULES_INSIDE = frozenset([
    "ast", "asyncio", "bltns", "builtins", "codecs", "codeop", "contextlib", "copyreg", "ctypes", "ctypeslib",
    "dataclasses", "distutils", "doctest", "f2py", "importlib", "inspect", "io", "lib", "linecache", "locale",
    "marshal", "multiprocessing", "os", "pickle", "pkgutil", "platform", "posix", "runpy", "shelve", "shutil", "socket",
    "subprocess", "sys", "tempfile", "testing", "thread", "threading", "timeit", "traceback", "types", "warnings",
    "weakref", "zipimport",
])  # fmt: skip
# What single modules hold under names that elsewhere are harmless: modules not on the list, and more evaluators.
_FORBIDDEN_IN = {
    module: frozenset(names.split())
    for module, names in {
        "calendar": "datetime different_locale main",
        "dataclasses": "Field abc copy fields functools itertools keyword re",
        "enum": "EnumMeta EnumType global_enum pickle_by_enum_name pickle_by_global_name property",
        "fractions": "math numbers operator re",
        "functools": "wraps",
        "numpy": "bmat char compat core ctypeslib doc dtypes emath exceptions f2py fft info lib load lookfor ma matlib"
        " matrixlib polynomial rec safe_eval save show_config source strings test testing tests typing version",
        "numpy.linalg": "lapack_lite linalg test",
        "numpy.random": "bit_generator mtrand test",
        "re": "copyreg enum functools sre_compile sre_constants sre_parse template",
        "statistics": "math numbers random",
        "sympy": "algebras assumptions calculus categories codegen combinatorics concrete core crypto deprecated"
        " diffgeom discrete doctest evalf external functions galgebra geometry holonomic init_printing init_session"
        " integrals interactive liealgebras logic matrices multipledispatch ntheory parsing physics plotting polys"
        " preview print_gtk printing public release sandbox sets stats strategies tensor test this timed"
        " unify utilities vector",
        "sympy.abc": "string",
        "sympy.solvers": "bivariate decompogen deutils inequalities ode pde polysys recurr simplex solvers",
        "typing": "collections functools get_args get_origin operator re stdlib_re",
    }.items()
}
# Of these, what ``from … import *`` leaves behind, and what programs call their own numbers.
_NOT_STARRED = frozenset([
    "categories", "crypto", "doc", "logic", "matrices", "physics", "sandbox", "sets", "source", "stats", "tests",
    "this", "unify", "vector", "version",
])  # fmt: skip
_PLAIN_DUNDERS = frozenset(["__init__", "__name__"])
# The only names with two underscores on both sides that a program may define; others speak to the interpreter.
_METHODS = frozenset(f"__{name}__" for name in [
    "abs", "add", "all", "and", "bool", "call", "ceil", "contains", "delitem", "doc", "enter", "eq", "exit", "float",
    "floor", "floordiv", "format", "ge", "getitem", "gt", "hash", "iadd", "imul", "index", "init", "int", "invert",
    "isub", "iter", "itruediv", "le", "len", "lt", "mod", "mul", "name", "ne", "neg", "next", "or", "pos", "post_init",
    "pow", "radd", "repr", "reversed", "rmul", "round", "rsub", "rtruediv", "setitem", "slots", "str", "sub", "truediv",
    "xor",
])  # fmt: skip
# Where a program makes these its own, it could be handed the class that ``type`` gives only to be compared or printed.
_WATCHERS = frozenset([
    "__contains__", "__eq__", "__ge__", "__gt__", "__le__", "__lt__", "__ne__", "print", "repr", "str",
])  # fmt: skip
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_NAMEDTUPLE = frozenset(["_asdict", "_fields", "_make", "_replace"])
_ENCODING = re.compile(r"\A(?:[^\n\r]*(?:\r\n?|\n))?[ \t\f]*#[^\n\r]*?coding[:=]")
_CODE_TAG = re.compile(r"</?code ?>|`+(?:python)?", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n?|\n")


Parents = Mapping[int, ast.AST]
"""What each node of a tree hangs on, by the node's identity."""


class Finding(NamedTuple):
    """What is wrong with a program, and on which of its lines, from 1."""

    line: int
    reason: str


class Unreadable(Exception):
    """A program that has to be rejected unread."""


class ImportsDefense(TextDefense):
    """Rejects programs that import what is not on the list, or try to.

    Args:
        allowed: The list: dotted names, each for that module alone.
        rewarded_only: Whether completions without reward are left alone.
        admission: What happens to rejected completions.
    """

    name = "imports"
    variants = ("code",)

    def __init__(
        self, allowed: Sequence[str] = ALLOWED, rewarded_only: bool = True, admission: Admission = "drop"
    ) -> None:
        if isinstance(allowed, str) or not all(isinstance(name, str) for name in allowed):
            raise ConfigError("Defense option allowed takes a list of module names.")
        super().__init__(rewarded_only, admission)
        self.allowed = frozenset(allowed)

    def read(self, text: str) -> Verdict:
        """The verdict on a completion's text; its score is the number of findings, of which the first are marked."""
        program = code_in_tags(text)
        if program is None:
            return Verdict(self.name, "abstain", "no program in code tags")
        try:
            tree = parse(program)
        except Unreadable as error:
            return Verdict(self.name, "reject", str(error))
        around = _imports_around(text, program, self.allowed)
        if around:
            reason = f"{around[0].note} outside the code tags"
            return Verdict(self.name, "reject", reason, float(len(around)), around[:MAX_FINDINGS])
        if tree is None:
            return Verdict(self.name, "abstain", "the program is not valid Python")
        findings = sorted(findings_of(tree, self.allowed))
        if not findings:
            return Verdict(self.name, "accept", "imports nothing but what is on my list", 0.0)
        first, more = findings[0], f"; {len(findings)} findings in all" if len(findings) > 1 else ""
        spans = _spans(text, program, findings[:MAX_FINDINGS])
        return Verdict(self.name, "reject", f"line {first.line} {first.reason}{more}", float(len(findings)), spans)


def parse(program: str) -> ast.Module | None:
    """Reads a program without running it.

    Returns:
        Its syntax tree; ``None`` if it is not valid Python and harmless as text.

    Raises:
        Unreadable: If it must be rejected, since what a sandbox would make of it is unknown.
    """
    if len(program) > MAX_SOURCE:
        raise Unreadable(f"{len(program)} characters are more than any sandbox runs")
    program = program.removeprefix(BYTE_ORDER_MARK)  # as Python and the sandboxes do
    if "\0" in program or _ENCODING.match(program):
        raise Unreadable("the program declares an encoding or holds a null character")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about "\d" and the like
            return ast.parse(program)
    except SyntaxError:
        words = set(re.findall(r"\w+", unicodedata.normalize("NFKC", program)))
        suspects = {word for word in words if "__" in word} | words & (_DYNAMIC_NAMES | {"import", "getattr"})
        if suspects:
            raise Unreadable(f"the program does not parse, but says {min(suspects)[:40]}") from None
        return None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unreadable(f"the program cannot be read ({type(error).__name__})") from error


def findings_of(tree: ast.Module, allowed: frozenset[str]) -> Iterator[Finding]:
    """Yields what a program does that it must not, in no order."""
    nodes = list(ast.walk(tree))
    parents = {id(child): node for node in nodes for child in ast.iter_child_nodes(node)}
    uses_sympy = False
    for node in nodes:
        line = getattr(node, "lineno", 1)
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
                uses_sympy |= any(module.startswith("sympy") for module in modules)
                yield from (Finding(line, f"imports {module[:80]}") for module in modules if module not in allowed)
            case ast.ImportFrom():
                uses_sympy |= (node.module or "").startswith("sympy")
                yield from (Finding(line, reason) for reason in _import_from(node, allowed))
        yield from (Finding(line, f"defines {name[:80]}") for name in _bound(node) if _is_inner(name, _METHODS))
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (Finding(line, reason) for reason in _hidden(node, parents))
    yield from _attributes(nodes, _own_names(nodes))
    yield from _names(nodes, parents, allowed)
    yield from _forms(nodes)
    if uses_sympy:
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.search("__|import", node.value):
                yield Finding(node.lineno, "gives sympy a text that could import")


def _attributes(nodes: Sequence[ast.AST], own: frozenset[str]) -> Iterator[Finding]:
    """Yields the attributes that lead out, or that are private and not a program's own."""
    for node in nodes:
        match node:
            case ast.Attribute(attr=name) if _leads_out(name):
                yield Finding(node.lineno, f"uses the attribute {name[:80]}")
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name) if name in own:
                pass
            case ast.Attribute(attr=name) if _is_private(name):
                yield Finding(node.lineno, f"uses the attribute {name[:80]}")
            case ast.MatchClass(kwd_attrs=names):
                bad = (name for name in names if _leads_out(name) or _is_private(name))
                yield from (Finding(node.lineno, f"matches {name[:80]}") for name in bad)


def _names(nodes: Sequence[ast.AST], parents: Parents, allowed: frozenset[str]) -> Iterator[Finding]:
    """Yields the names that run text or find modules, and modules used other than by what is harmless in them."""
    modules, foreign = _imported_names(nodes, allowed)
    watched = any(name in _WATCHERS for node in nodes for name in _bound(node))
    for node in nodes:
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load):
            continue
        name, parent = node.id, parents.get(id(node))
        by_text = name == "getattr" and not (_is_call_of(parent, node) and _is_plain_getattr(parent))
        class_as_value = name == "type" and (watched or not _is_question_of_type(node, parents))
        if name in _FORBIDDEN_NAMES or name in foreign or by_text or class_as_value or _is_inner(name):
            yield Finding(node.lineno, f"uses {name[:80]}")
        for module in sorted(modules.get(name, ())):
            reasons = list(_module_use(node, module, parents, allowed))
            yield from (Finding(node.lineno, reason) for reason in reasons)
            if reasons:  # one wrong use, whatever else the name may stand for
                break


def _module_use(node: ast.expr, module: str, parents: Parents, allowed: frozenset[str]) -> Iterator[str]:
    """Yields what is wrong with one use of a module: it may only be asked for an attribute that is no other module."""
    while True:
        parent = parents.get(id(node))
        if not isinstance(parent, ast.Attribute):
            yield f"uses the module {module} as a value"
            return
        node, name = parent, parent.attr
        if f"{module}.{name}" not in allowed:
            break
        module = f"{module}.{name}"
    if not isinstance(node.ctx, ast.Load):
        yield f"changes the module {module}"
    if _is_private(name) or name in _FORBIDDEN_IN.get(module, ()):
        yield f"uses the attribute {name[:80]} of {module}"


def _forms(nodes: Sequence[ast.AST]) -> Iterator[Finding]:
    """Yields other forms that read attributes by text, run text, or make classes in unusual ways."""
    for node in nodes:
        match node:
            case ast.ClassDef(keywords=[_, *_]):
                yield Finding(node.lineno, f"gives the class {node.name[:80]} a keyword")
            case ast.MatchClass(patterns=[_, *_]):
                yield Finding(node.lineno, "matches attributes by position")
            case ast.keyword(arg=str(name)) if _is_inner(name) or name.startswith("co_") or name in _EVALUATORS:
                yield Finding(node.lineno, f"gives the argument {name[:80]}")
            case ast.arg(annotation=ast.expr() as note) | ast.AnnAssign(annotation=note):
                yield from _text_in(note)
            case ast.FunctionDef(returns=ast.expr() as note) | ast.AsyncFunctionDef(returns=ast.expr() as note):
                yield from _text_in(note)


def _text_in(annotation: ast.expr) -> Iterator[Finding]:
    """Yields a finding if an annotation holds text, which is evaluated when somebody asks for types."""
    for node in ast.walk(annotation):
        text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
        if text or isinstance(node, ast.JoinedStr):
            yield Finding(annotation.lineno, "annotates with a text")
            return


def _imported_names(nodes: Sequence[ast.AST], allowed: frozenset[str]) -> tuple[dict[str, set[str]], frozenset[str]]:
    """The names of modules that may be imported, and those that ``from … import *`` brings and nobody may use.

    Other modules are findings by themselves, and their uses are not looked at: a name may be bound to thousands.
    """
    modules: dict[str, set[str]] = {}
    foreign: set[str] = set()
    for node in nodes:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    module = alias.name if alias.asname else alias.name.split(".")[0]
                    if alias.name in allowed:
                        modules.setdefault(alias.asname or module, set()).add(module)
            case ast.ImportFrom(module=str(package), names=[ast.alias(name="*")]):
                foreign |= _FORBIDDEN_IN.get(package, frozenset()) - allowed - _NOT_STARRED
                inside = (name.rpartition(".") for name in allowed)
                for name in [name for parent, _, name in inside if parent == package]:
                    modules.setdefault(name, set()).add(f"{package}.{name}")
            case ast.ImportFrom(module=str(package), names=names):
                for alias in names:
                    if f"{package}.{alias.name}" in allowed:
                        modules.setdefault(alias.asname or alias.name, set()).add(f"{package}.{alias.name}")
    return modules, frozenset(foreign)


def _own_names(nodes: Sequence[ast.AST]) -> frozenset[str]:
    """The private names that a program itself gives to its classes and their instances."""
    own: set[str] = set()
    for node in nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.ClassDef(body=body):
                own.update(name for statement in body for part in _targets(statement) for name in _bound(part))
    return frozenset(name for name in own if not (name.startswith("_") and name.endswith("_")))


def _targets(statement: ast.stmt) -> list[ast.AST]:
    """A statement of a class, and what it assigns to."""
    match statement:
        case ast.Assign(targets=targets):
            return [part for target in targets for part in ast.walk(target)]
        case ast.AnnAssign(target=target):
            return [target]
    return [statement]


def _bound(node: ast.AST) -> list[str]:
    """The names that this node, without those below it, binds."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [name]
        case ast.arg(arg=name) | ast.alias(asname=str(name)) | ast.ExceptHandler(name=str(name)):
            return [name]
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)) | ast.MatchMapping(rest=str(name)):
            return [name]
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            return names
    return []


def _import_from(node: ast.ImportFrom, allowed: frozenset[str]) -> Iterator[str]:
    """Yields what is wrong with a ``from … import …``."""
    module = node.module or ""
    if node.level or module not in allowed:
        yield f"imports from {'.' * min(node.level, 3)}{module[:80]}"
        return
    for alias in node.names:
        if alias.name.startswith("_") or _leads_out(alias.name) or alias.name in _FORBIDDEN_IN.get(module, ()):
            yield f"imports {alias.name[:80]} from {module}"


def _hidden(node: ast.Import | ast.ImportFrom, parents: Parents) -> Iterator[str]:
    """Yields what gives an imported name a second one: a class, whose attribute it is, or underscores to be mangled."""
    parent = parents.get(id(node))
    while isinstance(parent, ast.stmt | ast.ExceptHandler | ast.match_case) and not isinstance(parent, _FUNCTIONS):
        if isinstance(parent, ast.ClassDef):
            yield f"imports inside the class {parent.name[:80]}"
            break
        parent = parents.get(id(parent))
    names = (alias.asname or "" for alias in node.names)
    yield from (f"imports under the name {name[:80]}" for name in names if name.startswith("_"))


def _is_inner(name: str, but: frozenset[str] = _PLAIN_DUNDERS) -> bool:
    """Whether a name belongs to the interpreter rather than to programs."""
    return name.startswith("__") and name.endswith("__") and name not in but


def _is_private(name: str) -> bool:
    """Whether an attribute is for its owner alone."""
    return name.startswith("_") and name not in _PLAIN_DUNDERS and name not in _NAMEDTUPLE


def _leads_out(name: str) -> bool:
    """Whether an attribute leads from what is allowed to what is not."""
    forbidden = name in _FORBIDDEN_ATTRIBUTES or name.startswith(_FORBIDDEN_STARTS)
    return forbidden or _is_inner(name) or name.lstrip("_") in _MODULES_INSIDE


def _is_call_of(parent: ast.AST | None, node: ast.expr) -> TypeGuard[ast.Call]:
    """Whether the parent of a node calls it."""
    return isinstance(parent, ast.Call) and parent.func is node


def _is_plain_getattr(node: ast.Call) -> bool:
    """Whether a call is ``getattr(x, "name")`` with a name that does not lead to the interpreter."""
    match node:
        case ast.Call(func=ast.Name(id="getattr"), args=[first, ast.Constant(value=str(name)), *_]):
            return not (isinstance(first, ast.Starred) or _leads_out(name) or _is_private(name))
    return False


def _is_question_of_type(node: ast.Name, parents: Parents) -> bool:
    """Whether ``type`` only asks for one class, to compare, name or print it; as a value it could make new ones."""
    call = parents.get(id(node))
    if not _is_call_of(call, node) or len(call.args) != 1 or call.keywords or isinstance(call.args[0], ast.Starred):
        return False
    match parents.get(id(call)):
        case ast.Compare() | ast.FormattedValue() | ast.Attribute(attr="__name__"):
            return True
        case ast.Call(func=ast.Name(id="print" | "str" | "repr")):
            return True
    return False


def _imports_around(text: str, program: str, allowed: frozenset[str]) -> tuple[Span, ...]:
    """The lines outside the program that are import statements of what is not on the list."""
    start = text.index(program, text.index("<code>") + len("<code>"))
    outside = text[:start] + "\n" * len(program) + text[start + len(program) :]
    spans = []
    for line in re.finditer(r"[^\n\r]+", outside):
        statement = _CODE_TAG.sub(" ", line.group()).strip() if "import" in line.group() else ""
        tree = syntax_tree(statement)
        if tree and any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree)):
            found = sorted(findings_of(tree, allowed))
            spans += [Span(line.start(), line.end(), found[0].reason)] if found else []
    return tuple(spans)


def _spans(text: str, program: str, findings: Sequence[Finding]) -> tuple[Span, ...]:
    """The lines of findings within the completion."""
    start = text.index(program, text.index("<code>") + len("<code>"))
    borders = [0, *(match.end() for match in _LINE_END.finditer(program)), len(program) + 1]
    spans = []
    for finding in findings:
        line = min(finding.line, len(borders) - 1) - 1
        content = program[borders[line] : borders[line + 1]].rstrip("\r\n")
        spans.append(Span(start + borders[line], start + borders[line] + len(content), finding.reason))
    return tuple(spans)
