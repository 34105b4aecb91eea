# SPDX-License-Identifier: Apache-2.0
"""ChatVLA-2 in one place: Qwen2-VL with experts, learned action queries, action expert; and what each stage trains.

  sequence   prompt, reasoning and its end token, then Q action queries: learned vectors in place of token embeddings
  hidden     states of the language model after its last norm
  o          from the hidden states at the queries (the paper's action tokens) and the robot's state; with `sight`,
             also from the image tokens as the vision tower makes them
  r          from the hidden states at the reasoning tokens, the end token included, in training and inference alike
  chunk      the action expert denoises it under o and r
Departure: the papers do not say what the action tokens are at the input; here they are Q learned vectors, so they
need no row in the vocabulary. They see the reasoning; conditioning "none" thus still has a way for it to act.
Tensors: B rows, T tokens, V language width, Q queries, R robot rows, L longest reasoning, S image tokens and queries.
(ChatVLA-2, sections 3.1 to 3.3)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from chatvla_policy.model.action import ActionExpert, ReasoningTokens
from chatvla_policy.model.backbone import Backbone, build_backbone
from chatvla_policy.model.batch import RobotRows, VlaBatch
from chatvla_policy.model.config import ChatVLA2Config
from chatvla_policy.model.loss import LossTerms, action_terms, keyframe_term, language_terms
from chatvla_policy.model.moe import Path, Routing, RoutingTrace, routing

__all__ = ["ActionInputs", "ChatVLA2", "Stage"]


@dataclass(frozen=True, kw_only=True)
class ActionInputs:
    """What the action expert reads of the language model's states."""

    tokens_BSV: Tensor
    """The vision tower's image tokens, where the expert looks at them, and the states at the queries: the paper's
    action tokens."""
    reasoning: ReasoningTokens


class Stage(StrEnum):
    """What a training stage trains (section 3.3)."""

    LANGUAGE = "language"
    """The language model and the vision tower alone: what stands in for web pretraining at tiny size."""
    STAGE1 = "stage1"
    """All of the model, on image-text and robot data."""
    STAGE2 = "stage2"
    """The action expert alone; the language model and the queries are frozen, so its states need no gradient."""
    CONTROL = "control"
    """The control path's MLPs, the queries and the action expert (ChatVLA-1, stage 1): what understanding runs through
    stays as it is, bit for bit."""


class ChatVLA2(nn.Module):
    """The whole model."""

    def __init__(self, config: ChatVLA2Config, backbone: Backbone | None = None) -> None:
        """Build with random weights; a `backbone` that is at hand already is taken as it is."""
        super().__init__()
        self.config = config
        self.backbone = backbone or build_backbone(config.backbone.to_transformers(), config.moe)
        width = config.backbone.text.width
        self.queries_QV = nn.Parameter(torch.randn(config.action.queries, width) * 0.02)
        self.expert = ActionExpert(config.action, width)
        self.stage = Stage.STAGE1

    def set_stage(self, stage: Stage) -> tuple[str, ...]:
        """Freeze what `stage` does not train; return the names of the parameters that it trains.

        Raises ValueError for the control stage of a model without a control path.
        """
        if stage == Stage.CONTROL and not self.config.moe.static:
            raise ValueError(f"stage {stage} trains a static mixture's control path; this is {self.config.moe.kind}")
        self.stage = Stage(stage)
        for name, parameter in self.named_parameters():
            in_expert = name.startswith("expert.")
            in_backbone = name.startswith("backbone.")
            on_control_path = not in_backbone or f".static_experts.{int(Path.CONTROL)}." in name
            parameter.requires_grad_(
                self.stage is Stage.STAGE1
                or (self.stage is Stage.STAGE2 and in_expert)
                or (self.stage is Stage.LANGUAGE and in_backbone)
                or (self.stage is Stage.CONTROL and on_control_path)
            )
        self.train(self.training)
        return tuple(name for name, parameter in self.named_parameters() if parameter.requires_grad)

    def train(self, mode: bool = True) -> ChatVLA2:
        """Switch to training, where gating is noisy; a frozen backbone stays as at inference."""
        super().train(mode)
        if self.stage is Stage.STAGE2:
            self.backbone.train(False)
        return self

    def embed(self, ids_BT: Tensor, query_BT: Tensor) -> Tensor:
        """Return token embeddings, shape (B, T, V), with the queries at their places."""
        embeds_BTV = self.backbone.get_input_embeddings()(ids_BT)
        if not bool(query_BT.any()):
            return embeds_BTV
        places = query_BT.sum() // len(self.queries_QV)
        queries = self.queries_QV.to(embeds_BTV.dtype).repeat(int(places), 1)
        return embeds_BTV.masked_scatter(query_BT[..., None], queries)

    def hidden_states(self, batch: VlaBatch, *, embeds_BTV: Tensor | None = None) -> tuple[Tensor, RoutingTrace]:
        """Return the language model's states after its last norm, shape (B, T, V), and what the router chose.

        With `sight`, what stands at image tokens is what the vision tower saw, not the states there: where things are
        is plain in it, and no loss keeps it plain in them.
        `embeds_BTV` may stand in for the embeddings of the batch's tokens, image tokens among them.
        """
        inner, pixels = self.backbone.model, batch.pixel_values_PX
        sees = bool(self.config.action.sight) and embeds_BTV is None and pixels is not None
        if embeds_BTV is None:
            embeds_BTV = self.embed(batch.ids_BT, batch.query_BT)
        image_BT1 = (batch.ids_BT == self.config.backbone.image_token)[..., None]
        if sees:
            seen_MV = torch.cat(inner.get_image_features(pixels, batch.grid_thw_N3).pooler_output)
            embeds_BTV, pixels = embeds_BTV.masked_scatter(image_BT1, seen_MV.to(embeds_BTV.dtype)), None
        position_3BT = self._positions(batch)
        with routing(Routing(path=batch.kind_B, valid_BT=batch.valid_BT)) as trace:
            output = inner(
                input_ids=batch.ids_BT,
                inputs_embeds=embeds_BTV,
                attention_mask=batch.valid_BT.long(),
                position_ids=position_3BT,
                pixel_values=pixels,
                image_grid_thw=batch.grid_thw_N3,
                use_cache=False,
            )
        hidden_BTV = output.last_hidden_state
        return torch.where(image_BT1, embeds_BTV, hidden_BTV) if sees else hidden_BTV, trace

    def _positions(self, batch: VlaBatch) -> Tensor:
        """Return M-RoPE positions, shape (3, B, T); worked out here, as the library caches them between calls."""
        if batch.grid_thw_N3 is None:
            steps_T = torch.arange(batch.ids_BT.shape[1], device=batch.ids_BT.device)
            return steps_T.expand(3, *batch.ids_BT.shape)
        position_3BT, _ = self.backbone.model.get_rope_index(
            batch.ids_BT,
            mm_token_type_ids=(batch.ids_BT == self.config.backbone.image_token).int(),
            image_grid_thw=batch.grid_thw_N3,
            attention_mask=batch.valid_BT.long(),
        )
        return position_3BT

    def action_inputs(self, hidden_BTV: Tensor, batch: VlaBatch, robot: RobotRows) -> ActionInputs:
        """Return what the action expert reads of the language model's states, for the rows of one robot."""
        hidden_RTV = hidden_BTV[robot.rows_R]
        read_RT, text_RT = batch.query_BT[robot.rows_R], batch.text_BT[robot.rows_R]
        if self.config.action.sight:
            # Rows of one robot have the same cameras, so the same number of image tokens.
            read_RT = read_RT | (batch.ids_BT[robot.rows_R] == self.config.backbone.image_token)
        texts = [row_TV[text_T] for row_TV, text_T in zip(hidden_RTV, text_RT, strict=True)]
        lengths_R = text_RT.sum(1)
        return ActionInputs(
            tokens_BSV=hidden_RTV[read_RT].view(len(robot.rows_R), -1, hidden_RTV.shape[-1]),
            reasoning=ReasoningTokens(
                hidden_BLV=pad_sequence(texts, batch_first=True),
                valid_BL=torch.arange(int(lengths_R.max()), device=lengths_R.device) < lengths_R[:, None],
                numbers_BM=robot.numbers_RM,
            ),
        )

    def action_loss(
        self, inputs: ActionInputs, robot: RobotRows, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, int]:
        """Return the summed action loss of one robot's rows and their number of valid steps.

        Everything that stage 2 trains lies in here, so its inputs may be kept from an earlier run of the frozen part.
        """
        device = inputs.tokens_BSV.device
        noise_RHA = _drawn(torch.randn, robot.chunk_RHA.shape, generator, device)
        uniform_R = _drawn(torch.rand, robot.chunk_RHA.shape[:1], generator, device)
        conditions = self.expert.condition(robot.robot, inputs.tokens_BSV, robot.state_RZ, inputs.reasoning)
        error_RHA = self.expert.losses(
            robot.robot, conditions, robot.chunk_RHA, noise_BTA=noise_RHA, uniform_B=uniform_R
        )
        total, steps = action_terms(error_RHA, robot.valid_RH)
        if conditions.keyframe_BZ is None:
            return total, steps
        return total + self.config.action.keyframe * keyframe_term(conditions.keyframe_BZ, robot), steps

    def forward(self, batch: VlaBatch, *, generator: torch.Generator | None = None) -> LossTerms:
        """Return the losses of a batch; noise and noise levels come from `generator`."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.stage is not Stage.STAGE2):
            hidden_BTV, trace = self.hidden_states(batch)
            language_sum, language_tokens = hidden_BTV.new_zeros((), dtype=torch.float32), 0
            if self.stage is not Stage.STAGE2:
                language_sum, language_tokens = language_terms(
                    hidden_BTV, batch.ids_BT, batch.text_BT, self.backbone.lm_head
                )
            router = trace.loss() if self.stage is not Stage.STAGE2 else torch.zeros(())
        action_sum, action_steps = hidden_BTV.new_zeros((), dtype=torch.float32), 0
        for robot in batch.robots if self.stage is not Stage.LANGUAGE else ():
            inputs = self.action_inputs(hidden_BTV, batch, robot)
            part, steps = self.action_loss(inputs, robot, generator=generator)
            action_sum, action_steps = action_sum + part, action_steps + steps
        return LossTerms(
            language_sum=language_sum,
            language_tokens=language_tokens,
            action_sum=action_sum,
            action_steps=action_steps,
            router=router,
            action_weight=self.config.action_loss_weight,
        )


def _drawn(draw: object, shape: torch.Size, generator: torch.Generator | None, device: torch.device) -> Tensor:
    """Return random numbers drawn on the generator's device, so that a CPU generator serves every device."""
    source = generator.device if generator is not None else device
    return draw(shape, generator=generator, device=source, dtype=torch.float32).to(device)  # type: ignore[operator]
