# SPDX-License-Identifier: Apache-2.0
"""Train: forward, backward, step, again; keep what happened; go on exactly where a killed run stopped.

The batch of a step, the random numbers of its noise and gates and its learning rate are functions of (seed, step).
With the weights, the optimiser's moments and the averages restored, a resumed run therefore gives the losses of an
uninterrupted one, bit for bit on a CPU. Losses are exact means over all that one optimiser step sees, over
micro-batches and devices: their counts are known before the first forward.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.distributed.tensor import DTensor

from chatvla_training.data.stream import BatchStream, LoadedBatch
from chatvla_training.devices import reshard, spread
from chatvla_training.progress import progress
from chatvla_training.trainer.ema import Ema
from chatvla_training.trainer.loggers import Logger
from chatvla_training.trainer.plot import write_loss_plot
from chatvla_training.trainer.run_folder import RunFolder
from chatvla_training.trainer.schedule import Schedule, learning_rate
from chatvla_training.trainer.state import load_state, save_state
from chatvla_training.trainer.stopping import Stopped, StopRequest
from chatvla_training.trainer.task import TrainingTask
from chatvla_training.trainer.tensors import full, trained_parameters
from chatvla_training.trainer.validation import validate

__all__ = ["LoopSettings", "NotFiniteError", "Trainer"]


class NotFiniteError(RuntimeError):
    """A loss or gradient is NaN or infinite; the message names the step, the term and the samples."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long and how to train."""

    steps: int
    lr: float
    lr_end: float
    schedule: Schedule = "cosine"
    warmup: int = 0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip: float = 1.0
    accumulate: int = 1
    ema: float = 0.0
    seed: int = 0
    workers: int = 0
    validate_every: int = 0
    validation_batches: int = 8
    checkpoint_every: int = 1000
    keep: int = 2
    shard: bool = True
    """On several devices, shard the weights."""


class Trainer:
    """One training run."""

    def __init__(
        self,
        settings: LoopSettings,
        task: TrainingTask,
        stream: BatchStream,
        *,
        run: RunFolder,
        accelerator: Accelerator,
        validation: BatchStream | None = None,
        log: Logger | None = None,
    ) -> None:
        self._settings, self._task, self._stream, self._validation = settings, task, stream, validation
        self._run, self._accelerator, self._log = run, accelerator, log
        self._world, self._rank = accelerator.num_processes, accelerator.process_index
        self._module = spread(task.module, accelerator, shard=settings.shard)
        self.parameters = trained_parameters(self._module)
        self.sharded = any(isinstance(parameter, DTensor) for parameter in self.parameters.values())
        """Whether each device holds only its part of every weight."""
        decayed = [item for item in self.parameters.values() if item.ndim > 1]
        plain = [item for item in self.parameters.values() if item.ndim <= 1]
        self._optimiser = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=settings.lr,
            betas=settings.betas,
        )
        self.ema = Ema(self.parameters, decay=settings.ema)
        self.skipped = 0
        """Corrupt samples that others stood in for, since this process started."""

    @property
    def module(self) -> nn.Module:
        """The module as the devices hold it."""
        return self._module

    def train(self) -> None:
        """Train up to the last step, from the newest state of the run folder when there is one.

        Raises NotFiniteError when a loss or gradient is not finite; the state before it stays on disk. Raises Stopped
        after Ctrl-C or SIGTERM, when the step is done and its state on disk.
        """
        with StopRequest().heard() as stop:
            self._train(stop)

    def _train(self, stop: StopRequest) -> None:
        first = self._resume()
        settings = self._settings
        micro = settings.accumulate
        batches = self._stream.iterate(first * micro, settings.steps * micro, workers=settings.workers)
        bar = progress(range(first + 1, settings.steps + 1), "train", unit="step", total=settings.steps, start=first)
        self._module.train()
        for step in bar:
            started = time.perf_counter()
            loaded = self._load(step, batches, stop)
            figures = self._step(step, loaded, started=started)
            self._run.log({"step": step, **figures})
            if self._log is not None:
                self._log(step, figures)
            bar.set_postfix(loss=f"{figures['loss']:.4f}", skipped=self.skipped)
            last = step == settings.steps
            wanted = settings.validate_every and (last or step % settings.validate_every == 0)
            if self._validation is not None and wanted:
                self._validate(step)
            # All devices stop at the same step.
            stops = not last and bool(self._sum(stop.number)[0])
            if last or stops or step % settings.checkpoint_every == 0:
                self._save(step)
            if stops:
                bar.close()
                raise Stopped(step, stop.number)

    def _resume(self) -> int:
        """Restore the newest state; return its step, 0 for a new run."""
        states = self._run.states()
        if not states:
            self._run_rewind(0)
            return 0
        step, folder = max(states.items())
        load_state(
            folder,
            parameters=self.parameters,
            optimiser=self._optimiser,
            ema=self.ema,
            rank=self._state_rank,
            world=self._world,
        )
        self._run_rewind(step)
        return step

    def _run_rewind(self, step: int) -> None:
        if self._run.writes:
            self._run.rewind(step)

    @property
    def _state_rank(self) -> int:
        """Which file of a state is this device's: its own when weights are sharded, the first one otherwise."""
        return self._rank if self.sharded else 0

    def _load(self, step: int, batches: Iterator[LoadedBatch[Any]], stop: StopRequest) -> list[LoadedBatch[Any]]:
        """Return what `step` learns from. Raises Stopped where those that make batches were stopped with the run."""
        try:
            loaded = [next(batches) for _ in range(self._settings.accumulate)]
        except (RuntimeError, OSError, EOFError):
            if self._world > 1 or not stop.comes():
                raise
            if step > 1 and step - 1 not in self._run.states():
                self._save(step - 1)
            raise Stopped(step - 1, stop.number) from None
        self._count_skipped(step, loaded)
        return loaded

    def _step(self, step: int, loaded: Sequence[LoadedBatch[Any]], *, started: float) -> dict[str, float]:
        """Do one optimiser step; return its figures. `started`: when its batches were asked for."""
        settings, device = self._settings, self._accelerator.device
        waited_s = time.perf_counter() - started
        counted = [self._task.counts(item.batch) for item in loaded]
        tokens, steps = (int(value) for value in self._sum(*map(sum, zip(*counted, strict=True))))
        rate = learning_rate(
            step,
            schedule=settings.schedule,
            lr=settings.lr,
            lr_end=settings.lr_end,
            warmup=settings.warmup,
            steps=settings.steps,
        )
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        parts = [0.0, 0.0, 0.0]
        seen: list[dict[str, float]] = []
        for number, item in enumerate(loaded):
            seed = _mixed(settings.seed, step, number, self._rank)
            torch.manual_seed(seed)
            generator = torch.Generator().manual_seed(seed)
            batch = self._task.place(item.batch, device)
            last = number == len(loaded) - 1
            whole = self.sharded or last or self._world == 1
            # Around the forward as well: there it is settled whether its backward adds up gradients over devices.
            with nullcontext() if whole else self._accelerator.no_sync(self._module):
                with self._accelerator.autocast():
                    terms = self._module(batch, generator=generator)
                # Devices average gradients, so a sum over devices needs their number as factor.
                terms = replace(terms, router=terms.router / (settings.accumulate * self._world))
                loss = terms.total(language_tokens=tokens or 1, action_steps=steps or 1) * self._world
                figures = tuple(float(part.detach()) for part in (terms.language_sum, terms.action_sum, terms.router))
                seen.append(dict(zip(("language", "action", "router"), figures, strict=True)))
                if self._world == 1:
                    self._check(step, seen[-1], loaded)
                parts = [before + now for before, now in zip(parts, figures, strict=True)]
                loss.backward()
            weight = terms.action_weight
        if self._world > 1:
            self._check_together(step, seen, loaded)
        norm = float(full(nn.utils.clip_grad_norm_(self.parameters.values(), settings.clip)))
        self._check(step, {"gradient": norm}, loaded)
        self._optimiser.step()
        self._optimiser.zero_grad(set_to_none=True)
        self.ema.update(step)
        language, action, router = self._sum(*parts)
        found = {"language": language / tokens} if tokens else {}
        found |= {"action": action / steps} if steps else {}
        loss = found.get("language", 0.0) + weight * found.get("action", 0.0) + router
        seconds = time.perf_counter() - started
        return {"loss": loss, **found, "lr": rate, "gradient": norm, "seconds": seconds, "waited_s": waited_s}

    def _check(self, step: int, figures: Mapping[str, float], loaded: Sequence[LoadedBatch[Any]]) -> None:
        """Raise NotFiniteError naming term and samples when a figure is not finite."""
        if _not_finite(figures):
            raise self._stopped(step, figures, loaded)

    def _check_together(
        self, step: int, seen: Sequence[Mapping[str, float]], loaded: Sequence[LoadedBatch[Any]]
    ) -> None:
        """Raise NotFiniteError on all devices when a figure of any is not finite: none is left waiting for another."""
        own = [self._stopped(step, figures, loaded) for figures in seen if _not_finite(figures)][:1]
        if not self._sum(float(len(own)))[0]:
            return
        if own:
            raise own[0]
        raise NotFiniteError(f"step {step}: a figure of another device is not finite; its own message says which")

    def _stopped(self, step: int, figures: Mapping[str, float], loaded: Sequence[LoadedBatch[Any]]) -> NotFiniteError:
        """Write down which of this device's figures and samples are bad; return the error that says so."""
        bad, ids = _not_finite(figures), [name for item in loaded for name in item.ids]
        cause = {"step": step, "not_finite": bad, "figures": {k: str(v) for k, v in figures.items()}, "samples": ids}
        path = self._run.path / ("stopped.json" if self._accelerator.is_main_process else f"stopped-{self._rank}.json")
        path.write_text(json.dumps(cause, indent=2) + "\n", encoding="utf-8")
        shown = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        return NotFiniteError(
            f"step {step}: {' and '.join(bad)} not finite, with samples {shown}. The state before is kept; look at "
            f"these samples ({path.name} lists all), or lower lr"
        )

    def _count_skipped(self, step: int, loaded: Sequence[LoadedBatch[Any]]) -> None:
        missed = [entry for item in loaded for entry in item.skipped]
        self.skipped += len(missed)
        for sample, reason in missed:
            self._run.skip(step, sample, reason)

    def _sum(self, *values: float) -> list[float]:
        """Return the sums over all devices."""
        if self._world == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        summed = self._accelerator.reduce(tensor, "sum")
        return summed.tolist()  # pyright: ignore[reportAttributeAccessIssue]

    def _validate(self, step: int) -> None:
        assert self._validation is not None
        settings = self._settings
        batches = self._validation.iterate(0, settings.validation_batches, workers=0)
        with self.ema.applied(), self._accelerator.autocast():
            means = validate(self._task, self._module, batches, seed=settings.seed, device=self._accelerator.device)
        # What was gathered of the averages must not stay for the next step.
        reshard(self._module)
        self._run.log({"step": step, "validation": means})
        if self._log is not None:
            self._log(step, {f"validation/{name}": value for name, value in means.items()})

    def _save(self, step: int) -> None:
        """Write the state after `step`, drop old ones, draw the curves."""
        with self._run.new_state(step) as folder:
            self._accelerator.wait_for_everyone()
            if self._run.writes or self.sharded:
                save_state(
                    folder,
                    step=step,
                    parameters=self.parameters,
                    optimiser=self._optimiser,
                    ema=self.ema,
                    rank=self._state_rank,
                    world=self._world,
                )
            self._accelerator.wait_for_everyone()
        if self._run.writes:
            self._run.drop_states(keep=self._settings.keep)
            write_loss_plot(self._run.path / "loss.svg", self._run.metrics(), title=self._run.path.name)


def _not_finite(figures: Mapping[str, float]) -> list[str]:
    """Return the names of figures that are NaN or infinite."""
    return [name for name, value in figures.items() if not math.isfinite(value)]


def _mixed(*numbers: int) -> int:
    """Return one 63-bit seed of several numbers (FNV-1a)."""
    value = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little", signed=True):
            value = ((value ^ byte) * 0x100000001B3) & (2**64 - 1)
    return value >> 1
