# SPDX-License-Identifier: Apache-2.0
"""Join the losses of language and action so that neither dilutes the other.

  L = (1/n) sum over written tokens of cross-entropy
    + w (1/m) sum over valid chunk steps of the mean error over the action dims (model/action/objectives.py),
      and with a weight of its own the error of the guessed keyframe, where the action expert guesses one
    + router losses
n counts the tokens the model shall write (reasoning, answers, end tokens), m the valid steps of robot samples.
Image-text rows add nothing to m, padding adds nothing to either; with n or m zero that term is left out, so a batch
of one kind has exactly the gradient of that kind. Sums and counts are kept apart for exact means over many batches.
Tensors: B rows, T tokens, S written tokens, V width, R robot rows, H chunk steps, A action dims, Z
state dims.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from chatvla_policy.model.batch import RobotRows

__all__ = ["LossTerms", "action_terms", "keyframe_term", "language_terms"]


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """Sums and counts of one batch; tensors are scalars."""

    language_sum: Tensor
    language_tokens: int
    action_sum: Tensor
    action_steps: int
    router: Tensor
    """Balance and z losses, weighted; zero when off."""
    action_weight: float

    def total(self, *, language_tokens: int | None = None, action_steps: int | None = None) -> Tensor:
        """Return the loss to call backward on.

        The counts of several batches may be given for gradient accumulation or several devices; the default is this
        batch's own. A batch that supervises nothing gives zero, with no gradient.
        """
        tokens = self.language_tokens if language_tokens is None else language_tokens
        steps = self.action_steps if action_steps is None else action_steps
        total = torch.zeros((), device=self.language_sum.device, requires_grad=torch.is_grad_enabled())
        if self.language_tokens:
            total = total + self.language_sum / tokens
        if self.action_steps:
            total = total + self.action_weight * self.action_sum / steps
        return total + self.router.to(total.device)

    def figures(self) -> dict[str, float]:
        """Return the means as plain numbers, for logs; a term without samples is left out."""
        figures = {"router": float(self.router.detach())}
        if self.language_tokens:
            figures["language"] = float(self.language_sum.detach()) / self.language_tokens
        if self.action_steps:
            figures["action"] = float(self.action_sum.detach()) / self.action_steps
        return figures


def language_terms(hidden_BTV: Tensor, ids_BT: Tensor, text_BT: Tensor, head: nn.Module) -> tuple[Tensor, int]:
    """Return the summed cross-entropy of the written tokens, and their number.

    The token at position p is predicted from the hidden state at p - 1; logits are made for these positions only.
    """
    written_BU = text_BT[:, 1:]
    count = int(written_BU.sum())
    if not count:
        return hidden_BTV.new_zeros((), dtype=torch.float32), 0
    logits_SW = head(hidden_BTV[:, :-1][written_BU]).float()
    return functional.cross_entropy(logits_SW, ids_BT[:, 1:][written_BU], reduction="sum"), count


def action_terms(error_RHA: Tensor, valid_RH: Tensor) -> tuple[Tensor, int]:
    """Return the sum over valid steps of the mean error over action dims, and the number of valid steps.

    Invalid steps are left out by selection, not by multiplication: whatever stands there, NaN included, is not read.
    """
    return error_RHA[valid_RH].mean(-1).sum(), int(valid_RH.sum())


def keyframe_term(guess_RZ: Tensor, robot: RobotRows) -> Tensor:
    """Return the mean absolute error of each row's guessed keyframe, once for each of its valid steps, summed.

    Counted so, its mean is over the same steps as the chunk's. Raises ValueError when the keyframes are not known.
    """
    if robot.keyframe_RZ is None:
        raise ValueError(
            f"the action expert guesses keyframes (weight above 0), the samples of {robot.robot} have none; "
            "train on a data set, or set the expert's keyframe to 0"
        )
    error_R = (guess_RZ.float() - robot.keyframe_RZ).abs().mean(-1)
    return (error_R * robot.valid_RH.sum(1)).sum()
