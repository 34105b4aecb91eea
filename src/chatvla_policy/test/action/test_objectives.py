# SPDX-License-Identifier: Apache-2.0
"""Noise schedules and samplers against diffusers and against exact solutions."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from chatvla_policy.model.action import action_size
from chatvla_policy.model.action.objectives import FlowMatching, make_objective, squared_cosine_alpha_bars


def test_alpha_bars_equal_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(squared_cosine_alpha_bars(100), scheduler.alphas_cumprod, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 5, 10, 30, 100])
def test_sampler_equals_diffusers_ddim(make_expert, inputs, steps: int) -> None:
    diffusers = pytest.importorskip("diffusers")
    expert = make_expert()
    scheduler = diffusers.DDIMScheduler(
        num_train_timesteps=100,
        beta_schedule="squaredcos_cap_v2",
        clip_sample=True,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
    )
    scheduler.set_timesteps(steps)
    with torch.no_grad():
        conditions = expert.condition("arm", inputs.tokens, inputs.state, inputs.reasoning)
        chunk = inputs.noise
        for time in scheduler.timesteps:
            plan = expert.trunk.prepare(expert.time(time[None].float())[None], conditions)
            chunk = scheduler.step(expert.predict("arm", chunk, plan, 0), time, chunk).prev_sample
        ours = expert.sample("arm", conditions, noise_BTA=inputs.noise, steps=steps)
    # A random network amplifies rounding over a hundred steps.
    torch.testing.assert_close(ours, chunk, rtol=1e-3, atol=1e-3 if steps == 100 else 1e-5)


def test_noising_equals_diffusers() -> None:
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    clean, noise, uniform = torch.randn(4, 6, 3), torch.randn(4, 6, 3), torch.tensor([0.0, 0.3, 0.7, 0.999])
    noisy, target, time = make_objective(action_size("tiny")).corrupt(clean, noise, uniform)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, time.long()))
    assert torch.equal(target, noise)


def _gaussian_error(objective: str, steps: int) -> float:
    """Return the sampler's error where data are N(m, s^2) and the best prediction is known in closed form."""
    mean, spread = 0.3, 0.2
    config = action_size("tiny", objective=objective, clip_sample=False)
    run = make_objective(config).sampling(steps, torch.device("cpu"))
    noise = torch.linspace(-2, 2, 9)[None, :, None].double()
    chunk = noise
    for step, time in enumerate(run.times_K.tolist()):
        if objective == "diffusion":
            alpha = float(squared_cosine_alpha_bars(100)[int(time)])
            a, b = math.sqrt(alpha), math.sqrt(1 - alpha)
        else:
            a, b = 1 - time / 100, time / 100
        clean = mean + spread**2 * a / ((a * spread) ** 2 + b**2) * (chunk - a * mean)
        noise_now = (chunk - a * clean) / max(b, 1e-9)
        prediction = {"diffusion": noise_now, "flow": clean - noise_now, "flow_clean": clean}[objective]
        if step == 0:
            exact = mean + spread * (noise - a * mean) / math.sqrt((a * spread) ** 2 + b**2)
        chunk = run.advance(step, chunk, prediction)
    return float((chunk - exact).abs().max())


@pytest.mark.parametrize("objective", ["diffusion", "flow", "flow_clean"])
def test_more_steps_converge_to_the_exact_solution(objective: str) -> None:
    errors = [_gaussian_error(objective, steps) for steps in (5, 10, 20, 50)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.25 * errors[0]


def test_flow_target_leads_from_noise_to_chunk() -> None:
    clean, noise = torch.randn(2, 6, 3), torch.randn(2, 6, 3)
    flow = FlowMatching(action_size("tiny"))
    noisy, velocity, time = flow.corrupt(clean, noise, torch.tensor([0.0, 0.5]))
    assert torch.equal(noisy[0], noise[0])
    torch.testing.assert_close(noisy[1] + 0.5 * velocity[1], clean[1])
    assert time.tolist() == [100.0, 50.0]


def test_a_predicted_chunk_gives_the_path_of_its_velocity() -> None:
    noise, clean = torch.randn(2, 6, 3), torch.rand(2, 6, 3)
    config = action_size("compact")
    by_chunk, by_velocity = (make_objective(replace(config, objective=name)) for name in ("flow_clean", "flow"))
    uniform = torch.tensor([0.2, 0.7])
    noisy, target, time = by_chunk.corrupt(clean, noise, uniform)
    same_noisy, _, same_time = by_velocity.corrupt(clean, noise, uniform)
    assert torch.equal(target, clean)
    assert torch.equal(noisy, same_noisy)
    assert torch.equal(time, same_time)
    device = torch.device("cpu")
    chunks, velocities = by_chunk.sampling(4, device), by_velocity.sampling(4, device)
    x, y = noise, noise
    for step in range(4):
        x, y = chunks.advance(step, x, clean), velocities.advance(step, y, clean - noise)
        torch.testing.assert_close(x, y)
    torch.testing.assert_close(x, clean)


@pytest.mark.parametrize("steps", [0, 101])
def test_refuses_step_counts_outside_the_training_levels(steps: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in 1\.\.100"):
        make_objective(action_size("tiny")).sampling(steps, torch.device("cpu"))
