# SPDX-License-Identifier: Apache-2.0
"""Clicks anywhere, in any frame: refused in a sentence, or learnt from, and then as numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from cross4d_jepa_ros.model.prototypes import Prototypes
from cross4d_jepa_ros.pipeline import Output, Pipeline
from cross4d_jepa_ros.ros.teaching import Teaching, TeachingSetup
from cross4d_jepa_ros.sensing.frames import FrameAssembler, FrameConfig
from tests.checkpoints import fresh_checkpoint
from tests.malformed import messages
from tests.malformed.mutations import Change, changed, changes
from tests.malformed.readers import good_transforms
from tests.malformed.verdicts import NO_WARNINGS, verdict
from tests.tries import TRIED, tries

pytestmark = NO_WARNINGS

EXAMPLES = 200
STEP_BYTES = 20_000_000


class Desk:
    """Teaching around a tiny pipeline that has seen a sweep."""

    def __init__(self, folder: Path) -> None:
        model = folder / 'tiny.safetensors'
        fresh_checkpoint(model, width=24, blocks=1, heads=2, point_width=8)
        self.logged: list[str] = []
        log = SimpleNamespace(warning=self.logged.append, info=self.logged.append)
        node: Any = SimpleNamespace(get_logger=lambda: log, create_service=lambda *_: None)
        self.pipeline = Pipeline(model, device='cpu', precision='fp32')
        self.pipeline.teaching = True
        self.teaching = Teaching(node)
        transforms = good_transforms()
        file = folder / 'taught.safetensors'
        self.teaching.begin(TeachingSetup(self.pipeline, transforms, model, file, 10**8))
        self.frame = FrameAssembler(FrameConfig(), transforms).assemble(
            messages.cloud(), [], views=False
        )
        self.pipeline.step(self.frame, Output.ALL)

    def click(self, message: Any, what: object) -> str:
        """What is said about a click that is made and applied."""
        self.logged.clear()
        self.pipeline.prototypes = Prototypes.none(8)

        def apply() -> None:
            self.teaching.click('kerb', message)
            self.teaching.apply()

        verdict('PointStamped', apply, (), STEP_BYTES, what)
        (said,) = [line for line in self.logged if 'normalis' not in line]
        assert 10 < len(said) < 2000
        return said


@pytest.fixture(scope='module')
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp('desk'))


def at_a_point(desk: Desk, **point: float) -> SimpleNamespace:
    message = messages.click()
    x, y, z = map(float, desk.frame.sweep.xyz[0])
    message.point = SimpleNamespace(**{'x': x, 'y': y, 'z': z, **point})
    return message


def test_any_click(desk: Desk) -> None:
    before, verdicts = TRIED['PointStamped'], set()

    @settings(max_examples=tries(EXAMPLES))
    @given(changes=changes)
    def attack(changes: list[Change]) -> None:
        said = desk.click(changed(at_a_point(desk), changes), changes)
        verdicts.add('refused' in said)
        assert torch.isfinite(desk.pipeline.prototypes.vectors).all()

    attack()
    assert verdicts == {True, False}
    assert TRIED['PointStamped'] - before >= tries(EXAMPLES) * 9 // 10
    answer = desk.pipeline.step(desk.frame, Output.ALL)
    assert answer.probability is not None
    assert np.isfinite(answer.probability).all()


@pytest.mark.parametrize('value', [float('nan'), float('inf'), float('-inf'), 1e308, 1e10])
@pytest.mark.parametrize('axis', 'xyz')
def test_a_click_that_is_nowhere_is_refused(desk: Desk, axis: str, value: float) -> None:
    said = desk.click(at_a_point(desk, **{axis: value}), value)
    assert said.startswith('clicked point refused: It is at [')


def test_a_click_in_an_endless_frame_is_refused(desk: Desk) -> None:
    message = at_a_point(desk)
    message.header.frame_id = 'x' * 1_000_000
    assert 'has 1000000 characters' in desk.click(message, '')
