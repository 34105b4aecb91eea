# SPDX-License-Identifier: Apache-2.0
"""Bring states and actions to the scale of the model and back, by statistics stored in the checkpoint.

Per dimension, named as in RobotSpec, with a centre c and a half-width s so that y = (x - c) / s:
  min_max   c = (min + max) / 2, s = (max - min) / 2          data lie in [-1, 1]
  quantile  the same with the 1% and 99% quantiles            most data lie in [-1, 1]
  mean_std  c = mean, s = standard deviation
A dimension that hardly moves would blow up noise: its half-width is at least SMALLEST_HALF_WIDTH.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from chatvla_policy.strict_json import StrictJsonError, from_plain, to_plain

__all__ = ["SMALLEST_HALF_WIDTH", "NormalisationMethod", "RobotStatistics", "Statistics", "StatisticsError"]

NormalisationMethod = Literal["min_max", "quantile", "mean_std"]
SMALLEST_HALF_WIDTH = 1e-3
LARGEST = 1e6
"""Largest magnitude of any statistic [rad, m]: beyond it numbers are garbage."""
"""rad or m: about what encoders resolve."""


class StatisticsError(ValueError):
    """Statistics do not fit; the message names the dimension or the field."""


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Statistics of one kind of vector, per named dimension; units of the dimensions (rad, m)."""

    names: tuple[str, ...]
    method: NormalisationMethod
    count: int
    """Number of vectors seen."""
    minimum: tuple[float, ...]
    maximum: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    quantile_01: tuple[float, ...]
    quantile_99: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise StatisticsError for unknown methods, wrong lengths and values that are not finite."""
        if self.method not in get_args(NormalisationMethod):
            raise StatisticsError(
                f"no normalisation {self.method!r}; there are: {', '.join(get_args(NormalisationMethod))}"
            )
        for item in fields(self):
            values = getattr(self, item.name)
            if item.name in ("names", "method", "count"):
                continue
            if len(values) != len(self.names):
                raise StatisticsError(f"statistics {item.name} has {len(values)} values for {len(self.names)} names")
            for name, value in zip(self.names, values, strict=True):
                if not abs(value) <= LARGEST:
                    raise StatisticsError(
                        f"statistics {item.name} of {name} is {value}, must be finite and within {LARGEST:g}"
                    )
        for low, high in (("minimum", "maximum"), ("quantile_01", "quantile_99")):
            for name, least, most in zip(self.names, getattr(self, low), getattr(self, high), strict=True):
                if least > most:
                    raise StatisticsError(f"statistics {low} of {name} is {least}, above its {high} {most}")
        if min(self.std, default=0.0) < 0.0:
            raise StatisticsError(f"statistics std has {min(self.std)}, must be 0 or more")

    @classmethod
    def from_samples(
        cls, names: Sequence[str], samples: NDArray[np.floating[Any]], method: NormalisationMethod = "quantile"
    ) -> Statistics:
        """Return the statistics of samples of shape (N, dimensions). Raises StatisticsError when they do not fit."""
        if samples.ndim != 2 or samples.shape[1] != len(names) or not len(samples):
            raise StatisticsError(f"samples have shape {samples.shape}, expected (N >= 1, {len(names)})")
        exact = np.asarray(samples, np.float64)
        low, high = np.quantile(exact, [0.01, 0.99], axis=0)
        columns = {
            "minimum": exact.min(0),
            "maximum": exact.max(0),
            "mean": exact.mean(0),
            "std": exact.std(0),
            "quantile_01": low,
            "quantile_99": high,
        }
        return cls(
            names=tuple(names),
            method=method,
            count=len(samples),
            **{key: tuple(float(value) for value in column) for key, column in columns.items()},
        )

    def _centre_and_half_width(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return c and s, both of shape (dimensions,)."""
        if self.method == "mean_std":
            centre, half_width = np.array(self.mean), np.array(self.std)
        else:
            quantile = self.method == "quantile"
            low = np.array(self.quantile_01 if quantile else self.minimum)
            high = np.array(self.quantile_99 if quantile else self.maximum)
            centre, half_width = (low + high) / 2, (high - low) / 2
        return centre, np.maximum(half_width, SMALLEST_HALF_WIDTH)

    def normalise(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return values of shape (..., dimensions) at the model's scale."""
        centre, half_width = self._centre_and_half_width()
        return ((self._fitting(values) - centre) / half_width).astype(np.float32)

    def denormalise(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return values of shape (..., dimensions) in rad and m."""
        centre, half_width = self._centre_and_half_width()
        return self._fitting(values) * half_width + centre

    def _fitting(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return the values as float64. Raises StatisticsError when their width differs."""
        if values.shape[-1] != len(self.names):
            raise StatisticsError(
                f"vector has {values.shape[-1]} values, statistics have {len(self.names)}: {', '.join(self.names)}"
            )
        return np.asarray(values, np.float64)


@dataclass(frozen=True, kw_only=True)
class RobotStatistics:
    """Statistics of one robot's states and actions.

    Targets named in `relative` are learned as the difference from the position measured when the chunk begins: how far
    to go, not where to be. A chunk then starts where the joints are without the network having to say where that is.
    """

    state: Statistics
    action: Statistics
    relative: tuple[str, ...] = ()
    """Joints, each in both kinds of vector; `action` holds the statistics of their differences."""

    def __post_init__(self) -> None:
        """Raise StatisticsError for a relative joint that states or actions lack."""
        for name in self.relative:
            if name not in self.state.names or name not in self.action.names:
                raise StatisticsError(f"relative names {name!r}, which is not in both states and actions")

    def normalise_actions(
        self, actions: NDArray[np.floating[Any]], state: NDArray[np.floating[Any]]
    ) -> NDArray[np.float32]:
        """Return targets, shape (..., T, A) in rad and m, at the model's scale; `state` (..., Z) is measured."""
        return self.action.normalise(actions - self._start(state))

    def denormalise_actions(
        self, actions: NDArray[np.floating[Any]], state: NDArray[np.floating[Any]]
    ) -> NDArray[np.float64]:
        """Return targets, shape (..., T, A) in rad and m, of what `normalise_actions` gave."""
        return self.action.denormalise(actions) + self._start(state)

    def _start(self, state: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Return what is added to the differences, shape (..., 1, A): zero where targets are absolute."""
        if state.shape[-1] != len(self.state.names):
            raise StatisticsError(f"state has {state.shape[-1]} values, statistics have {len(self.state.names)}")
        start = np.zeros((*state.shape[:-1], 1, len(self.action.names)))
        for name in self.relative:
            start[..., 0, self.action.names.index(name)] = state[..., self.state.names.index(name)]
        return start

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for statistics.json."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, data: Any) -> RobotStatistics:
        """Return what `to_dict` wrote. Raises StatisticsError when a field is missing, unknown or does not fit."""
        try:
            return from_plain(cls, data, where="statistics")
        except StrictJsonError as error:
            raise StatisticsError(str(error)) from error

    def sha256(self) -> str:
        """Return the fingerprint that every chunk carries, lower-case hex."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()
