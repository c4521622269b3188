# SPDX-License-Identifier: Apache-2.0
"""Finds in source what would run or unpickle what a file, a message or a parameter says."""

from __future__ import annotations

import ast
from collections.abc import Iterator

# None of them is needed: there is no XML to parse, nothing to unpickle, and no network to talk to.
_MODULES = (
    'pickle _pickle cPickle marshal shelve joblib dill cloudpickle pandas xml lxml pty code '
    'codeop runpy socket http requests urllib.request ftplib smtplib'
)
_CALLS = (
    'eval exec compile __import__ os.system os.popen tempfile.mktemp importlib.import_module '
    'importlib.reload torch.save torch.jit.load torch.package.PackageImporter numpy.save '
    'asyncio.create_subprocess_shell subprocess.getoutput subprocess.getstatusoutput yaml.load '
    'yaml.load_all yaml.full_load yaml.full_load_all yaml.unsafe_load yaml.unsafe_load_all '
    'yaml.safe_load yaml.safe_load_all'
)
MODULES, CALLS = frozenset(_MODULES.split()), frozenset(_CALLS.split())
PREFIXES = ('torch.hub.', 'os.exec', 'os.spawn', 'os.posix_spawn')
LOADERS = frozenset(
    f'yaml.{name}Loader' for name in ('', 'C', 'Full', 'CFull', 'Unsafe', 'CUnsafe', 'Safe')
)
PROCESSES = frozenset(f'subprocess.{name}' for name in ('run', 'Popen', 'call'))
PROCESSES |= {'subprocess.check_call', 'subprocess.check_output'}


def forbidden(source: str) -> list[str]:
    """Name what is forbidden in a module's source, each with its line."""
    tree = ast.parse(source)
    names = _imported(tree)
    found = []
    for node in ast.walk(tree):
        for problem in _problems(node, names):
            found.append(f'{problem} in line {node.lineno}')
    return found


def _imported(tree: ast.Module) -> dict[str, str]:
    """Map each name that an import binds to what it is: `np` to `numpy`."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.split('.')[0]
                names[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {a.asname or a.name: f'{node.module}.{a.name}' for a in node.names}
    return names


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        owner = _dotted(node.value, names)
        return f'{owner}.{node.attr}' if owner else f'?.{node.attr}'
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ''


def _problems(node: ast.AST, names: dict[str, str]) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            modules = [f'{node.module}.{name}' for name in modules]
        for module in modules:
            parts = module.split('.')
            if {'.'.join(parts[:end]) for end in (1, 2)} & MODULES or module in LOADERS | CALLS:
                yield module
    elif isinstance(node, ast.Name | ast.Attribute) and _dotted(node, names) in LOADERS | CALLS:
        # Not only where it is called: `load = yaml.load` is no better.
        yield _dotted(node, names)
    elif isinstance(node, ast.Call):
        yield from _bad_call(_dotted(node.func, names), node)


def _bad_call(name: str, call: ast.Call) -> Iterator[str]:
    given = {word.arg: word.value for word in call.keywords}

    def says(word: str, value: bool) -> bool:
        return isinstance(given.get(word), ast.Constant) and given[word].value is value

    if name.startswith(PREFIXES):
        yield name
    if name == 'torch.load' and not says('weights_only', True):
        yield 'torch.load without weights_only=True'
    if name == 'numpy.load' and not says('allow_pickle', False):
        yield 'numpy.load without allow_pickle=False'
    if name.endswith('.from_pretrained') and not says('trust_remote_code', False):
        yield f'{name} without trust_remote_code=False'
    if name.endswith('AutoModel.from_pretrained') and not says('use_safetensors', True):
        yield f'{name} without use_safetensors=True'
    if 'shell' in given and not says('shell', False):
        yield f'{name} with a shell'
    if name in PROCESSES and call.args and isinstance(call.args[0], ast.Constant | ast.JoinedStr):
        yield f'{name} of text'
