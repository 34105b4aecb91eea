# SPDX-License-Identifier: Apache-2.0
"""Run a ChatVLA-2 checkpoint as a policy: reason, then act; or follow a given, reused or drafted reasoning.

Units: rad, m, s. Shapes: H, W image; T chunk steps; D joints; A action dims; Z state dims.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from chatvla_control.contracts import (
    ActionChunk,
    Inference,
    InputKind,
    Observation,
    Reasoning,
    ReasoningSource,
    RouterStats,
)
from chatvla_policy.checkpoint import Checkpoint, Golden, check_golden, load_checkpoint
from chatvla_policy.model.introspection import router_stats
from chatvla_policy.model.reasoner import Reasoner, Thought
from chatvla_policy.naming import policy_name
from chatvla_policy.processing.answers import stated_answer
from chatvla_policy.processing.boxes import parse_boxes
from chatvla_policy.processing.contradiction import contradicts_itself
from chatvla_policy.processing.images import ImagePreparer, PreparedImages
from chatvla_policy.processing.prompts import question_prompt, robot_prompt
from chatvla_policy.processing.stated_numbers import stated_numbers
from chatvla_policy.runtime.inference import StageSeconds
from chatvla_policy.systems.chunk_making import decided_rows, rows_within_limits, timed_chunk
from chatvla_policy.systems.settings import PolicySettings, Reuse, check_observation

__all__ = ["ChatVLA2Policy"]


class ChatVLA2Policy:
    """Policy of one checkpoint and one of its robots."""

    privileged = False

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        name: str = "chatvla2",
        robot: str | None = None,
        seed: int = 0,
        settings: PolicySettings | None = None,
    ) -> None:
        """Run `checkpoint` for `robot`, its first robot by default."""
        self.name = name
        self.checkpoint = checkpoint
        self.setup = checkpoint.robot(robot)
        self.settings = (settings or PolicySettings()).with_longest_text(checkpoint.model.config.text_age_s)
        self._model = checkpoint.model.eval()
        images = self._model.config.images
        self._images = ImagePreparer(images)
        self._reasoner = Reasoner(self._model, checkpoint.codec)
        self.image_size = (images.height, images.width)
        self.stage_seconds = StageSeconds()
        self.question_router: RouterStats | None = None
        """Where the tokens of the last question went; None before the first, and without a router."""
        self.reset(seed)

    @property
    def system(self) -> str:
        """Name of the system, as the checkpoint's config.json says it."""
        return self.checkpoint.model.config.system

    @classmethod
    def load(
        cls,
        folder: Path | str,
        *,
        device: str = "cpu",
        seed: int = 0,
        robot: str | None = None,
        dtype: torch.dtype | None = None,
        settings: PolicySettings | None = None,
    ) -> ChatVLA2Policy:
        """Return the policy of a checkpoint folder.

        Weights keep the stored type on a GPU and become float32 on the CPU, unless `dtype` is given.
        Raises CheckpointError naming the first mismatch.
        """
        if dtype is None and torch.device(device).type == "cpu":
            dtype = torch.float32
        checkpoint = load_checkpoint(folder, device=device, dtype=dtype)
        if torch.device(device).type == "cuda":
            checkpoint.model.backbone.pack_experts()
        return cls(checkpoint, name=policy_name(folder), robot=robot, seed=seed, settings=settings)

    def reset(self, seed: int) -> None:
        """Forget the last instruction and reasoning; draw further noise and ids from `seed`."""
        self._generator = torch.Generator().manual_seed(seed)
        self._ids = random.Random(seed)
        self._last: Reasoning | None = None
        self.forget_reasoning()

    def forget_reasoning(self) -> None:
        """Write a new text for the next observation, also where the last would be kept."""
        self._decoded_at_s = -np.inf

    def write(self, observation: Observation, *, pause: Callable[[], None] = lambda: None) -> Reasoning:
        """Return a new text about `observation`, for `adopt`.

        The text that it has is proposed as a draft. `pause` is called before each forward: it may well call `infer`,
        which goes on with the old text. Raises ObservationError when the input does not fit, and what `pause` raises.
        """
        check_observation(observation, self.setup)
        started = time.perf_counter()
        pictures = [observation.images[view] for view in self.setup.cameras]
        images = self._images(pictures)
        last = self._last
        text, _ = self._reasoner.answer(
            robot_prompt(self.checkpoint.codec, observation.instruction, image_tokens=images.tokens),
            images,
            variants=self._variants(pictures),
            draft=None if last is None or last.instruction != observation.instruction else last.text,
            sampling=self.settings.sampling,
            generator=self._device_generator(),
            pause=pause,
            doubt=self._doubt,
        )
        text, _ = self._reasoner.written(text)
        seconds = time.perf_counter() - started
        return self._reasoning(observation, text, ReasoningSource.GENERATED, images, seconds)

    def adopt(self, reasoning: Reasoning) -> None:
        """Go on with a text from `write`."""
        self._last, self._decoded_at_s = reasoning, reasoning.stamp_s

    def check_forced(self, text: str) -> None:
        """Raise PromptError when `text` is too long to be followed as a reasoning."""
        self._reasoner.check_length(text)

    def thinks_about(self, text: str) -> bool:
        """Return whether a forced `text` states no place, of which the action expert reads the numbers."""
        return bool(self._model.config.action.numbers) and bool(np.isnan(stated_numbers(text)).all())

    def infer(
        self,
        observation: Observation,
        forced_reasoning: str | None = None,
        previous_chunk: ActionChunk | None = None,
    ) -> Inference:
        """Return reasoning and chunk for `observation`.

        `forced_reasoning` replaces the policy's own text; one that does not say where things are, of a policy that acts
        on such numbers, is what the policy thinks about instead of the instruction. With `settings.commit_s` set, the
        chunk begins with what `previous_chunk` already decides. Raises ObservationError or PromptError where the input
        does not fit.
        """
        check_observation(observation, self.setup)
        started = time.perf_counter()
        pictures = [observation.images[view] for view in self.setup.cameras]
        images = self._images(pictures)
        prepared = time.perf_counter()
        # The thought's instruction is what it was about, so that it can be gone on with.
        about, given = observation, forced_reasoning
        if forced_reasoning is not None and self.thinks_about(forced_reasoning):
            self._reasoner.check_length(forced_reasoning)
            about, given = replace(observation, instruction=forced_reasoning), None
        thought, source = self._think(about, images, self._variants(pictures), given)
        thought_at = time.perf_counter()
        last = self._reasoning(about, thought.text, source, images, thought_at - started)
        forced = source if forced_reasoning is None else ReasoningSource.FORCED
        reasoning = replace(last, instruction=observation.instruction, source=forced)
        committed = decided_rows(
            self.setup,
            observation,
            previous_chunk,
            commit_s=self.settings.commit_s,
            horizon=self._model.config.action.embodiment(self.setup.spec.name).horizon,
        )
        rows = self._rows(thought, observation.joint_positions, committed=committed)
        chunk = timed_chunk(
            self.setup,
            observation,
            rows,
            reasoning,
            chunk_id=self._new_id(),
            checkpoint_hash=self.checkpoint.sha256,
        )
        self._last = last
        stats = router_stats(thought.trace, kind=InputKind.ROBOT, stamp_s=observation.stamp_s)
        self.stage_seconds = StageSeconds(
            preprocess=prepared - started,
            reasoning=thought_at - prepared,
            denoise=time.perf_counter() - thought_at,
        )
        return Inference(reasoning=reasoning, chunk=chunk, router=stats)

    def ask(self, question: str, images: Mapping[str, NDArray[np.uint8]] | None = None) -> str:
        """Return the answer to a question about images (RGB, any views), or about none: the model still chats."""
        pictures = list(images.values()) if images else []
        prepared = self._images(pictures) if pictures else None
        tokens = prepared.tokens if prepared is not None else ()
        prompt = question_prompt(self.checkpoint.codec, question, image_tokens=tokens)
        text, trace = self._reasoner.answer(
            prompt,
            prepared,
            variants=self._variants(pictures),
            sampling=self.settings.sampling,
            generator=self._device_generator(),
        )
        self.question_router = router_stats(trace, kind=InputKind.UNDERSTANDING, stamp_s=0.0)
        return text

    def make_golden(self, observation: Observation, text: str, *, seed: int = 0, tolerance: float = 0.02) -> Golden:
        """Return an input and the chunk this model gives for it, to be stored with the checkpoint."""
        embodiment = self._model.config.action.embodiment(self.setup.spec.name)
        shape = (embodiment.horizon, embodiment.action_width)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).numpy()
        draft = Golden(
            robot=self.setup.spec.name,
            images=tuple(observation.images[view] for view in self.setup.cameras),
            state=observation.joint_positions,
            instruction=observation.instruction,
            reasoning=text,
            noise=noise,
            chunk=noise,
            tolerance=tolerance,
        )
        return replace(draft, chunk=self._golden_chunk(draft))

    def check_golden(self) -> float | None:
        """Return how far the model is from the chunk stored with it (normalised units), None when none is stored.

        Raises GoldenMismatchError beyond the stored tolerance. A first inference: it warms the model up as well.
        """
        golden = self.checkpoint.golden
        if golden is None or golden.robot != self.setup.spec.name:
            return None
        return check_golden(golden, self._golden_chunk(golden))

    def _golden_chunk(self, golden: Golden) -> NDArray[np.float32]:
        """Return the normalised chunk for a golden input, shape (T, A)."""
        images = self._images(golden.images)
        prompt = robot_prompt(self.checkpoint.codec, golden.instruction, image_tokens=images.tokens)
        thought = self._reasoner.think(prompt, images, text=golden.reasoning)
        return self._denoise(thought, golden.state, noise=torch.from_numpy(golden.noise)[None])

    def _variants(self, pictures: Sequence[NDArray[np.uint8]]) -> Iterator[PreparedImages]:
        """Yield the further readings of the pictures; they are prepared only where a text is written."""
        return self._images.variants(pictures, self._model.config.readings - 1)

    @property
    def _doubt(self) -> Callable[[str], bool] | None:
        return contradicts_itself if self.settings.second_look else None

    def _think(
        self,
        observation: Observation,
        images: PreparedImages,
        variants: Iterable[PreparedImages],
        forced: str | None,
    ) -> tuple[Thought, ReasoningSource]:
        """Return the thought and where its text came from."""
        prompt = robot_prompt(self.checkpoint.codec, observation.instruction, image_tokens=images.tokens)
        if forced is not None:
            self._reasoner.check_length(forced)
            return self._reasoner.think(prompt, images, text=forced), ReasoningSource.FORCED
        last = self._last
        if last is not None and (last.instruction != observation.instruction or last.source is ReasoningSource.FORCED):
            last = None
        age_s = observation.stamp_s - self._decoded_at_s
        if last is not None and self.settings.reuse is Reuse.REFRESH and 0 <= age_s < self.settings.reason_every_s:
            return self._reasoner.think(prompt, images, text=last.text), ReasoningSource.REUSED
        draft = None if last is None or self.settings.reuse is Reuse.NEVER else last.text
        thought = self._reasoner.think(
            prompt,
            images,
            variants=variants,
            draft=draft,
            sampling=self.settings.sampling,
            generator=self._device_generator(),
            doubt=self._doubt,
        )
        self._decoded_at_s = observation.stamp_s
        return thought, ReasoningSource.GENERATED

    def _reasoning(
        self, observation: Observation, text: str, source: ReasoningSource, images: PreparedImages, seconds: float
    ) -> Reasoning:
        """Return the reasoning with its boxes, which refer to the first view."""
        view = self.setup.cameras[0]
        return Reasoning(
            id=self._new_id(),
            text=text,
            stamp_s=observation.stamp_s,
            source=source,
            policy=self.name,
            instruction=observation.instruction,
            answer=stated_answer(text),
            boxes=parse_boxes(text, view, images.placements[0], self._model.config.images),
            seconds=seconds,
        )

    def _rows(
        self, thought: Thought, state: NDArray[np.float64], *, committed: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Return the chunk in rad and m within the robot's limits, shape (T, A)."""
        statistics = self.setup.statistics
        prefix = None if committed is None else torch.from_numpy(statistics.normalise_actions(committed, state))[None]
        normalised = self._denoise(thought, state, committed=prefix, steps=self.settings.denoise_steps)
        return rows_within_limits(self.setup, normalised, state)

    def _denoise(
        self,
        thought: Thought,
        state: NDArray[np.float64],
        *,
        noise: torch.Tensor | None = None,
        committed: torch.Tensor | None = None,
        steps: int | None = None,
    ) -> NDArray[np.float32]:
        """Return the normalised chunk, shape (T, A), made in the checkpoint's own number of steps by default."""
        robot, expert = self.setup.spec.name, self._model.expert
        device = thought.tokens_1SV.device
        state_1Z = torch.from_numpy(self.setup.statistics.state.normalise(state))[None].to(device)
        with torch.inference_mode():
            chunk_1TA = expert.sample(
                robot,
                expert.condition(robot, thought.tokens_1SV, state_1Z, thought.reasoning),
                generator=self._generator if noise is None else None,
                noise_BTA=None if noise is None else noise.to(device),
                steps=steps,
                committed_BPA=None if committed is None else committed.to(device),
            )
        return chunk_1TA[0].cpu().numpy()

    def _device_generator(self) -> torch.Generator | None:
        """Return a generator on the model's device for sampling tokens, None where decoding is greedy."""
        if self.settings.sampling.temperature == 0:
            return None
        seed = int(torch.randint(2**62, (1,), generator=self._generator))
        return torch.Generator(self._model.queries_QV.device).manual_seed(seed)

    def _new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"
