# SPDX-License-Identifier: Apache-2.0
"""The numbers of the papers' tables, to stand beside ours. All are from real robots; ours are from simulation.

Success is k of n trials; OCR of 4, math of 2. In-domain the paper gives one reasoning score of 6, not its parts.
(ChatVLA-2, Tables 1 and 3 to 6; OpenReview: frozen language model, swapped cards, and that "stage 2 only" in Table 4
trains on robot data alone with nothing frozen: our row robot_only)
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPER", "PaperCell"]


@dataclass(frozen=True, kw_only=True)
class PaperCell:
    """One cell of the paper; None where it gives no number."""

    success: tuple[int, int] | None = None
    ocr: float | None = None
    math: float | None = None
    reasoning: float | None = None

    def said(self, measure: str) -> str:
        """Return the number of a measure as the paper writes it; empty where it gives none."""
        value = getattr(self, measure)
        if value is None:
            return ""
        return f"{value[0]}/{value[1]}" if measure == "success" else f"{value:.2f}"


FULL = PaperCell(success=(43, 52), ocr=3.58, math=1.73)
PAPER: dict[tuple[str, str, str], PaperCell] = {
    ("table1", "full", "in_domain"): PaperCell(success=(11, 13), reasoning=6.0),
    ("table1", "full", "open_world"): FULL,
    ("table1", "dense_film", "in_domain"): PaperCell(success=(12, 13), reasoning=5.2),
    ("table1", "dense_film", "open_world"): PaperCell(success=(10, 52), ocr=0.21, math=0.06),
    ("table1", "chatvla1", "in_domain"): PaperCell(success=(10, 13), reasoning=5.8),
    ("table1", "chatvla1", "open_world"): PaperCell(success=(4, 52), ocr=1.08, math=0.42),
    ("table1", "diffusion_policy", "in_domain"): PaperCell(success=(7, 13)),
    ("table1", "diffusion_policy", "open_world"): PaperCell(success=(3, 52)),
    ("table3", "full", "open_world"): FULL,
    ("table3", "static+dynamic", "open_world"): PaperCell(success=(11, 52), ocr=2.38, math=0.92),
    ("table3", "shared+dynamic", "open_world"): PaperCell(success=(25, 52), ocr=3.07, math=1.12),
    ("table3", "dense", "open_world"): PaperCell(success=(2, 52), ocr=0.04, math=0.0),
    ("table3", "dense_large", "open_world"): PaperCell(success=(8, 52), ocr=0.08, math=0.0),
    ("table4", "full", "open_world"): FULL,
    ("table4", "stage1_only", "open_world"): PaperCell(success=(12, 52), ocr=3.20, math=1.33),
    ("table4", "robot_only", "open_world"): PaperCell(success=(3, 52), ocr=0.15, math=0.04),
    ("table5", "full", "open_world"): PaperCell(ocr=3.58, math=1.73),
    ("table5", "experts_6_3", "open_world"): PaperCell(ocr=2.42, math=1.26),
    ("table5", "experts_4_2", "open_world"): PaperCell(ocr=1.87, math=0.94),
    ("table6", "full", "open_world"): FULL,
    ("table6", "inject_all", "open_world"): PaperCell(success=(36, 52)),
    ("table6", "inject_former", "open_world"): PaperCell(success=(22, 52)),
    ("frozen", "full", "open_world"): FULL,
    ("frozen", "frozen", "open_world"): PaperCell(success=(15, 52), ocr=2.77, math=0.98),
    ("swap", "full", "in_domain"): PaperCell(success=(12, 13)),
    ("swap", "full", "in_domain_swapped"): PaperCell(success=(10, 13)),
    ("swap", "no_module", "in_domain"): PaperCell(success=(11, 13)),
    ("swap", "no_module", "in_domain_swapped"): PaperCell(success=(2, 13)),
}
"""By table, row and cell."""
