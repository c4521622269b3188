# SPDX-License-Identifier: Apache-2.0
"""What is asked of a masked sweep, and what the target encoder sees of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from offline_training.objectives import settings
from offline_training.objectives.ema import target_of
from offline_training.objectives.losses import variance_hinge
from offline_training.objectives.masked_latent import MaskedObjective
from offline_training.objectives.masking import Part, draw_blocks, part_of, visible_window
from offline_training.objectives.passes import Pass, Term
from offline_training.objectives.predictor import MOST_QUERIES, initialise, some
from tests.offline_training.objectives.samples import model_of, network_of, window_of

ALL = (1.0, 1.0)
VISIBLE = settings.MaskedLatent(1, 'visible', 'context_aware', 4, 0.5, 'all', 'cosine', 0, ALL)
PREDICT = replace(VISIBLE, mode='predict')


def given_of(tokenizer: str = 'voxel', sweeps: int = 3, points: int = 600) -> Pass:
    model = model_of(tokenizer, sweeps)
    target = target_of(network_of(model, seed=2))
    return Pass(network_of(model), target, window_of(sweeps, points=points))


def asked(wanted: settings.MaskedLatent, given: Pass) -> Term:
    objective = MaskedObjective(wanted, settings.Predictor(8, 2, 2), given.network.config)
    initialise(objective, torch.Generator().manual_seed(1))
    term = objective(given)
    assert isinstance(term, Term)
    return term


def hidden_by_hand(given: Pass) -> tuple[torch.Tensor, list[Part]]:
    """Draw what the objective draws."""
    newest = given.inputs[-1].patches
    blocks = draw_blocks(newest, given.network.config, 4, 0.5, given.generator())
    assert blocks is not None
    return blocks.hidden, visible_window(given.inputs, blocks, ALL, torch.Generator())


@pytest.mark.parametrize('tokenizer', ['voxel', 'fps_knn'])
@pytest.mark.parametrize('sweeps', [1, 3])
def test_visible_tokens_are_compared_with_those_of_the_full_context(
    tokenizer: str, sweeps: int
) -> None:
    given = given_of(tokenizer, sweeps)
    term = asked(VISIBLE, given)
    hidden, parts = hidden_by_hand(given)
    assert torch.equal(parts[-1].token, (~hidden).nonzero().squeeze(1))
    online = given.network.encode_window([part.sweep for part in parts])[-1][0]
    assert torch.equal(term.prediction, online)
    full = given.encode_targets(given.inputs)[-1][0]
    torch.testing.assert_close(term.target, F.layer_norm(full[~hidden], (12,)))
    expected = 1 - F.cosine_similarity(term.prediction, term.target).mean()
    torch.testing.assert_close(term.loss.detach(), expected)


@pytest.mark.parametrize('tokenizer', ['voxel', 'fps_knn'])
@pytest.mark.parametrize('predictor', ['context_aware', 'concatenated'])
@pytest.mark.parametrize('target_tokens', ['all', 'hidden'])
def test_hidden_tokens_are_predicted(tokenizer: str, predictor: str, target_tokens: str) -> None:
    given = given_of(tokenizer)
    wanted = replace(PREDICT, predictor=predictor, target_tokens=target_tokens, loss='l2')
    term = asked(wanted, given)
    hidden, _ = hidden_by_hand(given)
    sweeps = given.inputs
    full = given.encode_targets(sweeps)[-1][0][hidden]
    if target_tokens == 'hidden':
        full = given.encode_targets([part_of(sweeps[-1], hidden).sweep])[0][0]
    torch.testing.assert_close(term.target, F.layer_norm(full, (12,)))
    torch.testing.assert_close(term.loss.detach(), F.mse_loss(term.prediction, term.target))


def test_the_target_encoder_is_never_blinded() -> None:
    # Whatever is hidden, the same targets at the same places.
    first, second = given_of(), given_of()
    second.window = replace(second.window, seed=99)
    assert not torch.equal(hidden_by_hand(first)[0], hidden_by_hand(second)[0])
    for given in (first, second):
        asked(VISIBLE, given)
    assert torch.equal(first.target_rows[-1][0], second.target_rows[-1][0])
    whole = first.encode_targets(first.inputs)
    assert torch.equal(first.target_rows[-1][0], whole[-1][0])


def test_at_most_so_many_are_asked_for() -> None:
    given = given_of(points=2000)
    assert int(hidden_by_hand(given)[0].sum()) > MOST_QUERIES
    term = asked(PREDICT, given)
    assert len(term.prediction) == MOST_QUERIES
    # Of the two networks, row for row the same places.
    alone = asked(replace(PREDICT, target_tokens='hidden'), given)
    assert torch.equal(alone.prediction, term.prediction)
    newest, draw = given.inputs[-1], given.generator()
    blocks = draw_blocks(newest.patches, given.network.config, 4, 0.5, draw)
    assert blocks is not None
    hidden = blocks.hidden
    visible_window(given.inputs, blocks, ALL, draw)
    chosen = some(int(hidden.sum()), MOST_QUERIES, draw, hidden.device)
    full = given.encode_targets(given.inputs)[-1][0][hidden][chosen]
    torch.testing.assert_close(term.target, F.layer_norm(full, (12,)))
    token = given.encode_targets([part_of(newest, hidden).sweep])[0][0][chosen]
    torch.testing.assert_close(alone.target, F.layer_norm(token, (12,)))


def test_the_hinge_is_on_what_the_network_says() -> None:
    given = given_of()
    plain = asked(VISIBLE, given)
    hinged = asked(replace(VISIBLE, variance_weight=2.0), given)
    expected = plain.loss + 2 * variance_hinge(plain.prediction)
    torch.testing.assert_close(hinged.loss, expected)
    assert hinged.loss > plain.loss


def test_a_sweep_of_two_patches_hides_one() -> None:
    model = model_of('voxel', 1)
    window = window_of(1)
    two = replace(window.sweeps[0], xyz=torch.tensor([[0.5, 0.5, 0.5], [5.5, 0.5, 0.5]]))
    two = replace(two, intensity=torch.zeros(2), sightings=())
    network = network_of(model)
    term = asked(PREDICT, Pass(network, target_of(network), replace(window, sweeps=(two,))))
    assert term.prediction.shape == (1, 12)
