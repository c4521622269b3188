# SPDX-License-Identifier: Apache-2.0
"""Measure everything that docs/results.md tells of, and write its tables and docs/results.json.

    python -m offline_training.results
    python -m offline_training.results config/results.yaml --work out/results --docs docs

Makes recordings, trains every method with every seed, fits probes, trains with few labels, names
classes from images and clicks, and puts the checkpoint that ships under stress: hours. Interrupted
and started again it goes on; what is measured already is not measured again. The text between the
tables is written by hand and stays.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from cross4d_jepa_ros.files import one_writer
from cross4d_jepa_ros.shared_files import shared_file
from offline_training.results.checkpoint_claims import evaluated
from offline_training.results.document import write_results
from offline_training.results.fine_tuning_claim import fine_tuned
from offline_training.results.naming_claims import named_by_images, taught_by_clicks
from offline_training.results.pretraining_claim import draw_all, linear_probes, pretrain_all
from offline_training.results.recordings import recordings
from offline_training.results.rows import Row, RowStore
from offline_training.results.settings import Results, load_results
from offline_training.shown_commands import CommandFailed

DEFAULT = 'config/results.yaml'


def _measured(config: Results, out: Path, command: str, console: Console) -> list[Row]:
    given = recordings(config, out, console)
    draw_all(config, out)
    pretrain_all(config, given, out, console)
    store = RowStore(out / 'rows', command)
    rows: list[Row] = []
    for measure in (linear_probes, fine_tuned, named_by_images, taught_by_clicks, evaluated):
        rows += measure(config, given, store, out, console)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, nargs='?', default=None, help=DEFAULT)
    parser.add_argument('--work', type=Path, default=Path('out/results'), help='folder')
    parser.add_argument('--docs', type=Path, default=Path('docs'), help='folder of results.md')
    words = list(sys.argv[1:] if argv is None else argv)
    arguments = parser.parse_args(words)
    console, out = Console(), arguments.work
    command = shlex.join(['python', '-m', 'offline_training.results', *words])
    try:
        config = load_results(arguments.config or shared_file(DEFAULT))
        with one_writer(out / '.lock', f'the results in {out}'):
            rows = _measured(config, out, command, console)
            write_results(rows, config, arguments.docs)
    except (CommandFailed, ValueError, OSError) as error:
        console.print(str(error), style='red', markup=False, soft_wrap=True)
        return 2
    console.print(f'{len(rows)} rows in {arguments.docs}: results.json, results.md, results.png')
    return 0


if __name__ == '__main__':
    sys.exit(main())
