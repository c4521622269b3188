# SPDX-License-Identifier: Apache-2.0
"""The training loop: one step after the other, from windows of sweeps to a checkpoint."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cross4d_jepa_ros.model.config import BadConfig, ModelConfig, Teacher
from cross4d_jepa_ros.model.network import Network
from offline_training.objectives.ema import follow, momentum
from offline_training.objectives.passes import Pass
from offline_training.objectives.window import Window
from offline_training.optimisation import (
    GRADIENT_NORM,
    adamw,
    optimiser_tensors,
    restore_optimiser,
    set_learning_rate,
    warm_cosine,
)
from offline_training.pretraining.losses import Losses
from offline_training.pretraining.processes import Processes
from offline_training.pretraining.samples import moved_to
from offline_training.pretraining.settings import Pretraining
from offline_training.pretraining.watch import EVERY, CollapseWatch, DeadRun
from offline_training.pretraining.windows import UnfitData, Windows
from offline_training.teachers.target_cache import TargetCache

# Of AdamW: a second moment that forgets soon recovers from an odd window.
BETAS = (0.9, 0.95)
# What the teacher's space is fitted to.
SPACE_SWEEPS, SPACE_POINTS = 64, 256
# Windows that the three colours of embeddings are fitted to.
BASIS_WINDOWS = 8


class Run:
    """One training: the network, its losses, the optimiser, and what watches them.

    Args:
        config: Settings.
        model: The network's sizes.
        windows: What is learnt from.
        targets: Cached features; None where no objective asks for them.
        processes: That share the work.

    Attributes:
        network: What is kept.
        teacher: Whose feature space is learnt; None where none is.
        steps: Of the whole run.

    Raises:
        BadConfig: The processes cannot share a batch equally, or a size cannot be built.
        UnfitData: No point is visible in any image.

    """

    def __init__(
        self,
        config: Pretraining,
        model: ModelConfig,
        windows: Windows,
        targets: TargetCache | None,
        processes: Processes,
    ) -> None:
        if config.batch % processes.world:
            msg = f'batch is {config.batch}, which {processes.world} processes cannot share equally'
            raise BadConfig(msg)
        self._config, self._processes = config, processes
        self.steps = max(1, math.ceil(config.epochs * len(windows) / config.batch))
        generator = torch.Generator().manual_seed(config.seed)
        self.teacher = None
        if 'dense_correspondence' in config.objectives.weights:
            assert targets is not None
            self.teacher = _teacher(config, targets)
        self.network = Network(model, 0, self.teacher)
        self.network.initialise(generator)
        if self.network.teacher_space is not None:
            space = self.network.teacher_space
            space.fit(windows.teacher_features(SPACE_SWEEPS, SPACE_POINTS))
            windows.teacher_space = space.mean.clone(), space.components.clone()
        channels = (0, 0)
        if targets is not None:
            channels = targets.manifest.channels, targets.manifest.view_channels
        self.losses = Losses(self.network, config.objectives, *channels, generator)
        self.losses.to(processes.device)
        self._trained = self.losses.trained()
        self._optimiser = adamw(self._trained, config.weight_decay, BETAS)
        self._watch = CollapseWatch(list(self.losses.weights), processes.total)
        self._parallel: nn.Module = self.losses
        if processes.world > 1:
            self._parallel = DistributedDataParallel(self.losses, broadcast_buffers=False)
        on_gpu = processes.device.type == 'cuda'
        self.precision = (
            ('bf16' if on_gpu else 'fp32') if config.precision == 'auto' else (config.precision)
        )

    def step(self, number: int, windows: Iterator[Window | UnfitData]) -> dict[str, float]:
        """Learn from one batch.

        Args:
            number: Of the step, from 0.
            windows: Gives this process's share of the batch.

        Returns:
            Figures for the log; `data_s` is the time that the step waited for windows.

        Raises:
            DeadRun: The loss is no number, or a latent collapsed.
            UnfitData: A window cannot be read any more.

        """
        begin = time.perf_counter()
        share = self._config.batch // self._processes.world
        names = list(self.losses.weights)
        # Loss and number of the samples that have one, then the same of each term.
        sums = torch.zeros(1 + len(names), 2, dtype=torch.float64, device=self._processes.device)
        data_s = 0.0
        self._optimiser.zero_grad()
        for place in range(share):
            asked = time.perf_counter()
            found = next(windows)
            if isinstance(found, UnfitData):
                raise found
            window = moved_to(found, self._processes.device)
            data_s += time.perf_counter() - asked
            with self._gradients_stay_here(place < share - 1):
                with self._reckoning():
                    total, terms = self._parallel(window)
                total.backward()
            self._watch.add(terms)
            if terms:
                sums[0] += torch.stack((total.detach().double(), sums.new_ones(())))
            for name, term in terms.items():
                sums[1 + names.index(name)] += torch.stack(
                    (term.loss.detach().double(), sums.new_ones(()))
                )
        (loss, count), *of_terms = self._processes.total(sums).tolist()
        row = {'step': number, 'loss': loss / count if count else math.nan}
        for name, (term_loss, term_count) in zip(names, of_terms, strict=True):
            row[name] = term_loss / term_count if term_count else math.nan
        if count:
            row |= self._descend(number, row['loss'], self._processes.world / count)
        if number % EVERY == 0 or number == self.steps - 1:
            for name, figures in self._watch.look(number).items():
                row |= {f'{name}.{figure}': value for figure, value in figures.items()}
        return row | {'data_s': data_s, 'step_s': time.perf_counter() - begin}

    def _descend(self, number: int, loss: float, scale: float) -> dict[str, float]:
        """Follow the gradient, times `scale`, and have the target encoder follow the network."""
        if not math.isfinite(loss):
            msg = (
                f'the loss of step {number} is {loss}: lower learning_rate'
                + (', or take precision fp32' if self.precision == 'bf16' else '')
                + '; what was saved before is still there'
            )
            raise DeadRun(msg)
        learning_rate = self._config.learning_rate * warm_cosine(
            number, self.steps, self._config.warm_up
        )
        gradients = [value.grad for value in self._trained.values() if value.grad is not None]
        torch._foreach_mul_(gradients, scale)
        norm = torch.nn.utils.clip_grad_norm_(list(self._trained.values()), GRADIENT_NORM)
        set_learning_rate(self._optimiser, learning_rate)
        self._optimiser.step()
        if self.losses.target_network is not None:
            keeps = momentum(number, self.steps, self._config.objectives.ema)
            follow(self.losses.target_network, self.network, keeps)
        return {'learning_rate': learning_rate, 'gradient_norm': float(norm)}

    def _gradients_stay_here(self, here: bool) -> contextlib.AbstractContextManager[None]:
        """Leave it to the last sample of a step to add up the processes' gradients."""
        if here and isinstance(self._parallel, DistributedDataParallel):
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _reckoning(self) -> contextlib.AbstractContextManager[None]:
        return torch.autocast(
            self._processes.device.type, torch.bfloat16, enabled=self.precision == 'bf16'
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that the next step depends on."""
        moments = optimiser_tensors(self._optimiser, self._trained)
        return {**self.losses.state_dict(), **moments, **self._watch.tensors()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `tensors`."""
        self.losses.load_state_dict({name: tensors[name] for name in self.losses.state_dict()})
        restore_optimiser(self._optimiser, self._trained, tensors)
        self._watch.restore(tensors)

    @torch.inference_mode()
    def fit_projections(self, windows: Windows) -> None:
        """Fit the three colours of embeddings and their normalisation to windows all over."""
        places = torch.linspace(0, len(windows) - 1, BASIS_WINDOWS).long().unique().tolist()
        embeddings: list[Tensor] = []
        for place in places:
            window = moved_to(windows.window(0, place), self._processes.device)
            embeddings.append(Pass(self.network, None, window).rows[-1][1])  # (L, C)
        self.network.fit_projections(torch.cat(embeddings))


def columns_of(config: Pretraining, figures: Sequence[str]) -> list[str]:
    """Name the columns of a run's log."""
    terms = list(config.objectives.weights)
    watched = [f'{name}.{figure}' for name in terms for figure in figures]
    return ['step', 'loss', *terms, 'learning_rate', 'gradient_norm', *watched, 'data_s', 'step_s']


def _teacher(config: Pretraining, targets: TargetCache) -> Teacher:
    manifest = targets.manifest
    if config.components > manifest.channels:
        msg = (
            f'components is {config.components}, but {manifest.teacher} has features of '
            f'{manifest.channels} channels: give at most that'
        )
        raise BadConfig(msg)
    return Teacher(
        name=manifest.teacher,
        weights_sha256=manifest.weights_sha256,
        input_height=manifest.input_height,
        stride=manifest.stride,
        channels=manifest.channels,
        components=config.components,
        hidden=config.objectives.dense_correspondence.hidden,
    )
