# SPDX-License-Identifier: Apache-2.0
"""Open the data that a recipe names, mixed as it says, and make batches as inference makes its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chatvla_control.robot_spec import RobotSpec, robot_names, robot_spec
from chatvla_policy.checkpoint import RobotSetup
from chatvla_policy.model.batch import VlaBatch
from chatvla_policy.model.chatvla2 import ChatVLA2
from chatvla_policy.processing.images import ImagePreparer
from chatvla_policy.processing.prompts import Turn
from chatvla_policy.processing.samples import Batcher, ImageTextSample
from chatvla_policy.processing.samples import RobotSample as PolicySample
from chatvla_policy.processing.statistics import RobotStatistics, Statistics
from chatvla_policy.processing.tokens import TextCodec
from chatvla_training.data.episodes import EpisodeDataset
from chatvla_training.data.llava import LlavaSource
from chatvla_training.data.mixture import Group, Mixture
from chatvla_training.data.samples import ChatSample, RobotSample, Sample, SampleSource
from chatvla_training.demos.thoughts import reworded
from chatvla_training.recipe import Recipe, RecipeError
from chatvla_training.synthetic.sources import open_source

__all__ = ["Collate", "RobotData", "half_widths", "image_text_sources", "make_mixture", "robot_data", "robot_setups"]


STATISTICS_CHUNKS = 4000
"""Chunks that the statistics of relative targets are made of, at most."""


@dataclass(frozen=True, kw_only=True)
class RobotData:
    """The robot data sets of a recipe."""

    train: tuple[EpisodeDataset, ...]
    validation: tuple[EpisodeDataset, ...]

    def specs(self, default: str) -> tuple[RobotSpec, ...]:
        """Return the robots of the data, or `default` where there is none. Raises RecipeError without either."""
        names = dict.fromkeys(data.robot for data in self.train) or {default: None}
        if "" in names:
            raise RecipeError(f"there is no robot data: give --robot NAME, one of {', '.join(robot_names())}")
        return tuple(robot_spec(name) for name in names)


def robot_data(recipe: Recipe) -> RobotData:
    """Open the robot data sets. Raises DatasetError, and RecipeError when views or joints do not fit together."""
    folders = [Path(part.strip()) for part in recipe.data.split(",") if part.strip()]
    if recipe.stage == "language":
        folders = []
    elif not folders:
        raise RecipeError(f"recipe {recipe.name} needs robot data: give --data FOLDER (made by ./chatvla demos)")

    def opened(split: str, wording: bool) -> tuple[EpisodeDataset, ...]:
        rewrite = partial(reworded, brief=recipe.brief) if wording and recipe.reword else None
        return tuple(
            EpisodeDataset(
                folder,
                split=split,
                horizon=recipe.horizon,
                wording=rewrite,
                text_age_s=recipe.text_age_s,
                after_end=recipe.after_end,
                every=recipe.frame_every,
            )
            for folder in folders
        )

    train = opened("train", True)
    for data in train:
        spec = robot_spec(data.robot)
        if data.joint_names != spec.joint_names:
            raise RecipeError(f"{data.folder} has joints {', '.join(data.joint_names)}; {spec.name} has others")
        same = [other for other in train if other.robot == data.robot]
        if any(other.views != data.views for other in same):
            raise RecipeError(f"data sets of {data.robot} have different cameras: {[other.views for other in same]}")
    held = [data for data in train if "val" in data.info["splits"]]
    return RobotData(train=train, validation=opened("val", False) if held and len(held) == len(train) else ())


def image_text_sources(recipe: Recipe) -> tuple[SampleSource, ...]:
    """Open the image-text data. Raises RecipeError for an entry that is neither KIND=FILE nor synthetic:NAME."""
    sources: list[SampleSource] = []
    cache = Path(recipe.scene_cache) if recipe.scene_cache else None
    for entry in (part.strip() for part in recipe.image_text.split(",") if part.strip()):
        kind, found, path = entry.partition("=")
        if entry.startswith("synthetic:"):
            try:
                sources.append(open_source(entry.removeprefix("synthetic:"), recipe.seed, cache))
            except ValueError as error:
                raise RecipeError(f"image_text: {error}") from error
        elif found:
            sources.append(LlavaSource(Path(path), kind=kind))
        else:
            raise RecipeError(f"image_text entry {entry!r} is neither KIND=FILE.json nor synthetic:NAME")
    return tuple(sources)


def make_mixture(recipe: Recipe, robot: RobotData) -> Mixture:
    """Return the recipe's stream of samples. Raises RecipeError when it asks for image-text data and names none."""
    chat_share, robot_share = recipe.ratio
    sources = image_text_sources(recipe) if chat_share and recipe.stage != "stage2" else ()
    if chat_share and recipe.stage != "stage2" and not sources:
        raise RecipeError(
            f"ratio {chat_share}:{robot_share} asks for image-text data; give --image_text KIND=FILE.json,... "
            "or --ratio 0:1"
        )
    groups = [
        Group(name="image_text", share=chat_share, sources=sources),
        Group(name="robot", share=robot_share, sources=robot.train),
    ]
    return Mixture(groups, seed=recipe.seed)


def robot_setups(recipe: Recipe, robot: RobotData, before: Sequence[RobotSetup]) -> tuple[RobotSetup, ...]:
    """Return cameras and statistics per robot: those of the checkpoint where its expert is kept, else of the data.

    Without robot data the robot's limits stand in for statistics; stage 1 replaces them. Raises RecipeError when the
    data lacks a camera.
    """
    if recipe.keeps_expert:
        for setup in before:
            _check_cameras(recipe, setup, robot)
        return tuple(before)
    if not robot.train:
        spec = robot_spec(recipe.robot)
        limits = np.stack([spec.lower, spec.upper])
        plain = Statistics.from_samples(spec.joint_names, limits, "min_max")
        statistics = RobotStatistics(state=plain, action=plain)
        known = tuple(setup for setup in before if setup.spec.name == spec.name)
        cameras = _wanted(recipe) or ("top",)
        return known or (
            RobotSetup(spec=spec, cameras=cameras, statistics=statistics, step_period_s=1.0 / spec.rate_hz),
        )
    return tuple(_setup(recipe, spec, robot) for spec in robot.specs(recipe.robot))


def _check_cameras(recipe: Recipe, setup: RobotSetup, robot: RobotData) -> None:
    for data in robot.train:
        lacks = [view for view in setup.cameras if view not in data.views]
        if data.robot == setup.spec.name and lacks:
            raise RecipeError(
                f"{recipe.init} sees {', '.join(setup.cameras)}, and {data.folder} has no view {', '.join(lacks)}; it "
                f"has: {', '.join(data.views)}. Give --data with those views, or train stage1 on this data first"
            )


def _setup(recipe: Recipe, spec: RobotSpec, robot: RobotData) -> RobotSetup:
    sets = [data for data in robot.train if data.robot == spec.name]
    states = np.concatenate([data.states_ND for data in sets])
    actions = np.concatenate([data.actions_ND for data in sets])
    # Damaged rows are skipped as samples; they must not reach the scales either.
    states, actions = (rows[np.isfinite(rows).all(axis=1)] for rows in (states, actions))
    relative: tuple[str, ...] = ()
    if recipe.relative_actions:
        relative = tuple(joint.name for joint in spec.joints if joint.unit == "rad")
        actions = np.concatenate([_ways(data, np.isin(spec.joint_names, relative)) for data in sets])
    return RobotSetup(
        spec=spec,
        cameras=_cameras(recipe, sets[0]),
        statistics=RobotStatistics(
            state=Statistics.from_samples(spec.joint_names, states, recipe.normalisation),
            action=Statistics.from_samples(spec.joint_names, actions, recipe.normalisation),
            relative=relative,
        ),
        step_period_s=sets[0].step_period_s,
    )


def _ways(data: EpisodeDataset, relative_A: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the targets of chunks spread over the data, shape (N, A), less the start's position where relative."""
    found = []
    for index in np.unique(np.linspace(0, len(data) - 1, STATISTICS_CHUNKS).astype(int)):
        rows = data.chunk(index)[0].astype(np.float64) - np.where(relative_A, data.state(index), 0.0)
        found.append(rows[np.isfinite(rows).all(axis=1)])
    return np.concatenate(found)


def _cameras(recipe: Recipe, data: EpisodeDataset) -> tuple[str, ...]:
    """Return the views that the policy shall see. Raises RecipeError for one that the data lacks."""
    wanted = _wanted(recipe)
    for view in wanted:
        if view not in data.views:
            raise RecipeError(f"cameras: {data.folder} has no view {view!r}; it has: {', '.join(data.views)}")
    return wanted or data.views


def _wanted(recipe: Recipe) -> tuple[str, ...]:
    return tuple(part.strip() for part in recipe.cameras.split(",") if part.strip())


def half_widths(setups: Sequence[RobotSetup]) -> dict[str, Tensor]:
    """Return what one normalised unit is per action value [rad, m], shape (A,) per robot."""
    found = {}
    for setup in setups:
        action = setup.statistics.action
        width = len(action.names)
        found[setup.spec.name] = torch.from_numpy(
            action.denormalise(np.ones(width)) - action.denormalise(np.zeros(width))
        ).float()
    return found


class Collate:
    """Samples of this package to batches of the policy package."""

    def __init__(self, model: ChatVLA2, codec: TextCodec, setups: Sequence[RobotSetup]) -> None:
        """Take the processing of the model to be trained, so that training and inference share it."""
        config = model.config
        self.statistics: Mapping[str, RobotStatistics] = {setup.spec.name: setup.statistics for setup in setups}
        self._cameras = {setup.spec.name: setup.cameras for setup in setups}
        self._batcher = Batcher(
            codec=codec,
            images=ImagePreparer(config.images),  # pyright: ignore[reportArgumentType]
            statistics=self.statistics,
            queries=config.action.queries,
            horizons={item.name: item.horizon for item in config.action.embodiments},
        )

    def __call__(self, samples: Sequence[Sample]) -> VlaBatch:
        """Return the batch of `samples`."""
        return self._batcher([self.converted(sample) for sample in samples])

    def converted(self, sample: Sample) -> PolicySample | ImageTextSample:
        """Return one sample as the policy package takes it."""
        if isinstance(sample, ChatSample):
            *earlier, last = sample.turns
            return ImageTextSample(
                images=sample.images,
                question=last.question,
                answer=last.answer,
                earlier=tuple(Turn(question=turn.question, answer=turn.answer) for turn in earlier),
            )
        if isinstance(sample, RobotSample):
            return PolicySample(
                robot=sample.robot,
                images=tuple(sample.images[view] for view in self._cameras[sample.robot]),
                instruction=sample.instruction,
                reasoning=sample.reasoning,
                state=sample.state.astype(np.float64),
                actions=sample.actions[: int(sample.valid.sum())].astype(np.float64),
                keyframe=None if sample.keyframe is None else sample.keyframe.astype(np.float64),
            )
        raise TypeError(f"no way to batch a {type(sample).__name__}")
