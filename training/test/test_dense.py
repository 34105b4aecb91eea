# SPDX-License-Identifier: Apache-2.0
"""Dense labels say what the pictures show, in the order of the processor's patches; kept scenes are what was drawn."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from chatvla_control.robot_spec import robot_spec
from chatvla_policy.checkpoint import load_checkpoint
from chatvla_policy.processing.images import ImageConfig, ImagePreparer
from chatvla_policy.processing.tokens import TextCodec
from chatvla_sim.math_match.fonts import font_files
from chatvla_sim.math_match.handwriting import Glyph
from chatvla_training.build_data import Collate
from chatvla_training.build_model import start_model
from chatvla_training.dense_objectives import SceneCollate
from chatvla_training.objectives import Built, make_objective
from chatvla_training.recipe import RecipeError, changed
from chatvla_training.recipes import find_recipe
from chatvla_training.scene_labels import TURN_RAD, merge_order, token_aims
from chatvla_training.synthetic import sheets
from chatvla_training.synthetic.pool import ScenePool
from chatvla_training.synthetic.sheets import CHARACTERS, PATCH_PX, draw_sheet, patch_characters
from chatvla_training.synthetic.sources import Page, open_source, varied_scene
from chatvla_training.tied_words import PLACES, TENS, tied_words
from chatvla_training.training_run import train_recipe
from chatvla_training.vocabulary import tiny_tokenizer

CONFIG = ImageConfig(width=224, height=168)


def test_labels_stand_in_the_order_of_the_processors_patches() -> None:
    """A picture whose patches each have their own grey: sorting patches and labels gives the same order."""
    rows, columns = CONFIG.height // PATCH_PX, CONFIG.width // PATCH_PX
    number = np.arange(rows * columns).reshape(rows, columns)
    image = np.kron(number, np.ones((PATCH_PX, PATCH_PX))).astype(np.uint8)
    prepared = ImagePreparer(CONFIG)([np.repeat(image[..., None], 3, 2)])
    grey_P = prepared.pixel_values_PX.mean(1)
    assert torch.equal(grey_P.argsort(stable=True), merge_order(number).argsort(stable=True))


def test_patch_under_a_glyph_carries_its_character() -> None:
    labels = patch_characters([Glyph(character="7", x=21.0, y=35.0)], [12.0], 4, 4)
    assert labels[2, 1] == 1 + CHARACTERS.index("7")
    assert np.count_nonzero(labels) == 1


def test_sheets_are_labelled_where_there_is_ink_and_nowhere_else() -> None:
    sheet = draw_sheet("test", np.random.default_rng(4))
    patches = (
        sheet.image.astype(float).mean(2).reshape(8, PATCH_PX, 8, PATCH_PX).transpose(0, 2, 1, 3).reshape(8, 8, -1)
    )
    contrast = np.ptp(patches, axis=2)
    labelled = sheet.characters > 0
    assert labelled.sum() > 12
    # A blank patch holds the paper's noise alone.
    assert not labelled[contrast < 60].any()
    assert (contrast[labelled] > 100).mean() > 0.9


def test_no_hand_of_the_sheets_is_held_out() -> None:
    forbidden = set(font_files("held_out"))
    for number in range(0, sheets.MORE_HANDS, 40):
        rng = np.random.default_rng([number, 7302])
        style = sheets.draw_style(rng, sheets.HANDWRITING_PARTS[number % len(sheets.HANDWRITING_PARTS)])
        assert style.font not in forbidden
        assert style.part != "held_out"


def test_labelled_scene_names_glyphs_and_places_where_they_are() -> None:
    scene = ScenePool("drawn", 3, None).scene(5)
    equation = scene.trial.equation
    batch = SceneCollate(CONFIG)([scene])
    shown = {CHARACTERS[value - 1] for value in batch.characters_P.tolist() if value > 0}
    assert shown <= set(scene.trial.equation.text + "".join(str(card.value) for card in scene.trial.cards))
    assert set(scene.trial.equation.text) <= shown
    places = {PLACES[value - 1] for value in batch.places_P.tolist() if value > 0}
    assert places == {card.place for card in scene.trial.cards}
    on_card = batch.places_P > 0
    labels = torch.stack([batch.places_P, batch.tens_P, batch.units_P], 1)[on_card].unique(dim=0).tolist()
    numbers = {
        (card.place, card.value // 10 if card.value > 9 else TENS - 1, card.value % 10) for card in scene.trial.cards
    }
    assert {(PLACES[place - 1], tens, units) for place, tens, units in labels} == numbers
    elsewhere = torch.stack([batch.tens_P, batch.units_P], 1)[~on_card & (batch.units_P >= 0)].unique(dim=0).tolist()
    operands = {(value // 10 if value > 9 else TENS - 1, value % 10) for value in (equation.left, equation.right)}
    assert {(tens, units) for tens, units in elsewhere} == operands
    assert batch.rows_P.max() == CONFIG.height // PATCH_PX - 1
    assert batch.columns_P.max() == CONFIG.width // PATCH_PX - 1


@pytest.mark.parametrize("kind", ["drawn", "rendered"])
def test_aims_lead_from_patches_and_image_tokens_to_the_middles_of_the_cards(kind: str) -> None:
    scene = ScenePool(kind, 3, None).scene(5)
    batch = SceneCollate(CONFIG)([scene])
    scale = CONFIG.width / 320
    middles = [((b[0] + b[2]) / 2 * scale, (b[1] + b[3]) / 2 * scale) for b in scene.card_boxes]
    turns = [card.yaw_rad / TURN_RAD for card in scene.trial.cards]
    rows, columns = CONFIG.height // PATCH_PX, CONFIG.width // PATCH_PX
    patch_P2 = merge_order(np.indices((rows, columns)).transpose(1, 2, 0)).flip(1)
    token_M2 = torch.from_numpy(np.indices((rows // 2, columns // 2)).reshape(2, -1).T.copy()).flip(1)
    middle_2 = torch.tensor([CONFIG.width, CONFIG.height]) / 2
    for start, aims in (
        ((patch_P2 + 0.5) * PATCH_PX, batch.aims_P3),
        ((token_M2 + 0.5) * 2 * PATCH_PX, token_aims(batch.aims_P3)),
        (middle_2, batch.lying_M3),
    ):
        led = start + aims[:, :2] * PATCH_PX
        aimed = ~aims[:, 0].isnan()
        found = set()
        for point, turn in zip(led[aimed].tolist(), aims[aimed, 2].tolist(), strict=True):
            distances = [np.abs(np.subtract(middle, point)).max() for middle in middles]
            nearest = int(np.argmin(distances))
            assert distances[nearest] < 1e-2
            assert turn == pytest.approx(turns[nearest], abs=1e-5)
            found.add(nearest)
        assert found == set(range(len(middles)))


def test_rendered_scene_says_where_its_cards_and_glyphs_are() -> None:
    """Ink lies under the marks: against paper of one colour, the darkest pixel near each glyph stands out."""
    scene = ScenePool("rendered", 3, None).scene(0)
    grey = scene.image.astype(float).mean(2)
    darker = 0
    for glyph in scene.glyphs[: len(scene.trial.equation.text)]:
        x, y = int(glyph.x), int(glyph.y)
        spot = grey[y - 12 : y + 13, x - 10 : x + 11]
        darker += spot.min() < np.median(spot) - 40
    assert darker == len(scene.trial.equation.text)


def test_image_tokens_are_tied_to_the_whole_number_the_operator_and_the_place() -> None:
    codec = TextCodec(tiny_tokenizer())
    words = tied_words(codec)
    named = [codec.text([token]) for token in words.ids_S.tolist()]

    def said(row: torch.Tensor) -> set[str]:
        return {named[index].strip() for index in row.nonzero().flatten().tolist()}

    assert [said(words.numbers_NS[number]) for number in (7, 70, 100)] == [{"7"}, {"70"}, {"10", "0"}]
    assert [said(row) for row in words.signs_CS] == [{"+"}, {"-"}, {"x"}]
    assert [said(row) for row in words.places_CS] == [set(place.split()) for place in PLACES]


def test_marks_move_with_the_picture() -> None:
    scene = ScenePool("drawn", 3, None).scene(2)
    moved = varied_scene(scene, np.random.default_rng(7))
    shift = (moved.glyphs[0].x - scene.glyphs[0].x, moved.glyphs[0].y - scene.glyphs[0].y)
    assert shift != (0, 0)
    assert [glyph.x - shift[0] for glyph in moved.glyphs] == [glyph.x for glyph in scene.glyphs]
    right, down = (int(value) for value in shift)
    old, new = scene.image.astype(float).mean(2), moved.image.astype(float).mean(2)
    inner = old[20:-20, 20:-20]
    same = new[20 + down : new.shape[0] - 20 + down, 20 + right : new.shape[1] - 20 + right]
    assert np.corrcoef(inner.ravel(), same.ravel())[0, 1] > 0.97


def test_kept_scene_is_the_drawn_scene(tmp_path: Path) -> None:
    drawn, pool = ScenePool("drawn", 3, None).scene(9), ScenePool("drawn", 3, tmp_path)
    first, again = pool.scene(9), ScenePool("drawn", 3, tmp_path).scene(9)
    for kept in (first, again):
        assert np.array_equal(kept.image, drawn.image)
        assert kept.trial == drawn.trial
        assert [glyph.character for glyph in kept.glyphs] == [glyph.character for glyph in drawn.glyphs]
        assert np.allclose([(g.x, g.y) for g in kept.glyphs], [(g.x, g.y) for g in drawn.glyphs], atol=1e-3)


def test_arms_of_rendered_scenes_stand_in_other_places() -> None:
    pool = ScenePool("rendered", 3, None)
    first, second = pool.scene(0), pool.scene(1)
    assert first.image.shape == (240, 320, 3)
    assert first.trial != second.trial
    # The same scene again, picture for picture.
    assert np.array_equal(ScenePool("rendered", 3, None).scene(0).image, first.image)


def test_tower_and_language_model_learn_apart_and_meet(tmp_path: Path) -> None:
    """Two steps of glyphs, two of imagined scenes, then two of align with the tower of the one and the words of the
    other.
    """
    small = {"steps": "2", "batch": "4", "micro_batch": "4", "workers": "0", "scene_cache": ""}
    new = {"size": "micro", **small}
    tower = train_recipe(changed(find_recipe("tiny_glyphs"), new), tmp_path / "glyphs")
    words = train_recipe(changed(find_recipe("tiny_places"), new), tmp_path / "places")
    align = replace(changed(find_recipe("tiny_align"), small), init=str(words), init_vision=str(tower))
    both = train_recipe(align, tmp_path / "align")
    saw, spoke, after = (load_checkpoint(folder).model.state_dict() for folder in (tower, words, both))
    start = start_model(align, [robot_spec("arx_r5")]).model.state_dict()
    for name, value in after.items():
        assert torch.equal(start[name], (saw if ".visual." in name else spoke)[name])
        assert ".visual." in name or torch.equal(value, spoke[name])
    assert any(not torch.equal(after[name], saw[name]) for name in after if ".visual." in name)
    sharper = replace(align, init=str(both), init_vision="", objective="align_sheets", image_text="synthetic:pages")
    last = load_checkpoint(train_recipe(sharper, tmp_path / "pages")).model.state_dict()
    assert {name for name in last if not torch.equal(last[name], after[name])} <= {n for n in last if ".visual." in n}
    assert any(not torch.equal(last[name], after[name]) for name in last)
    assert any(not torch.equal(spoke[name], saw[name]) for name in spoke if ".visual." not in name)
    assert all(torch.equal(spoke[name], value) for name, value in start_tower(words).items())


def start_tower(folder: Path) -> dict[str, torch.Tensor]:
    """Return the tower that a new model like that of `folder` begins with."""
    recipe = changed(find_recipe("tiny_places"), {"size": "micro"})
    start = start_model(recipe, [robot_spec("arx_r5")]).model.state_dict()
    kept = load_checkpoint(folder).model.state_dict()
    return {name: start[name] for name in kept if ".visual." in name}


def test_tower_of_another_shape_is_refused(tmp_path: Path) -> None:
    small = {"steps": "1", "batch": "2", "micro_batch": "2", "workers": "0", "scene_cache": "", "size": "micro"}
    tower = train_recipe(changed(find_recipe("tiny_glyphs"), small), tmp_path / "glyphs")
    with pytest.raises(RecipeError, match="has another shape"):
        start_model(replace(find_recipe("tiny_places"), init_vision=str(tower)), [robot_spec("arx_r5")])


def test_imagined_tokens_say_what_lies_where_they_are() -> None:
    recipe = replace(find_recipe("tiny_words"), init="", init_gain=3.0, image_width=308)
    start = start_model(recipe, [robot_spec("arx_r5")])
    collate = Collate(start.model, start.codec, ())
    task, make = make_objective(Built(recipe=recipe, start=start, collate=collate, half_width={}))
    samples = [open_source("imagined", 3).sample(index, 0) for index in range(10)]
    shown = [sample for sample in samples if sample.images]
    parts = make(samples)
    assert [part.shares_MS is not None for part in parts] == [True, False]
    batch, shares_MS = parts[0].batch, parts[0].shares_MS
    assert batch.pixel_values_PX is None
    images = start.model.config.images
    rows, columns = images.height // (2 * PATCH_PX), images.width // (2 * PATCH_PX)
    assert len(shares_MS) == len(shown) * rows * columns
    assert int((batch.ids_BT == start.codec.image_id).sum()) == len(shares_MS)
    tokens_MV = task.module._tokens(shares_MS, torch.Generator().manual_seed(0))
    embedding_TV = start.model.backbone.get_input_embeddings().weight
    number_NV = torch.nn.functional.normalize(embedding_TV[[start.codec.plain(str(n))[0] for n in range(100)]], dim=1)
    right = count = 0
    for index, sample in enumerate(shown):
        scene = sample.extras["scene"]
        for card, box in zip(scene.trial.cards, scene.card_boxes, strict=True):
            column, row = ((box[k] + box[k + 2]) / 2 * images.width / 320 // (2 * PATCH_PX) for k in (0, 1))
            token = index * rows * columns + int(row) * columns + int(column)
            words = {
                start.codec.text([int(part.words.ids_S[s])]).strip()
                for part in (task.module,)
                for s in shares_MS[token].nonzero().flatten()
            }
            if card.value < 100:
                assert {str(card.value), *card.place.split()} <= words
                said = int((tokens_MV[token] @ number_NV.T).argmax())
                right, count = right + (said == card.value), count + 1
    assert count > 10
    # Faint ones and those that say a stray number besides are misheard: as in a tower's own tokens.
    assert right / count > 0.8


def test_sources_of_dense_labels_are_functions_of_their_numbers() -> None:
    for name in ("sheets", "labelled", "pages"):
        first, again, other = (pictures(open_source(name, 3).sample(index, 2)) for index in (17, 17, 18))
        assert all(map(np.array_equal, first, again))
        assert not any(map(np.array_equal, first, other))


def pictures(sample: Any) -> list[np.ndarray]:
    if isinstance(sample, Page):
        return [sample.scene.image, *(sheet.image for sheet in sample.sheets)]
    return [sample.image]


def test_sheets_beside_scenes_ask_their_characters_and_nothing_else() -> None:
    recipe = replace(find_recipe("tiny_align"), init="", init_vision="", size="micro", image_width=308)
    start = start_model(recipe, [robot_spec("arx_r5")])
    collate = Collate(start.model, start.codec, ())

    def objective(name: str) -> tuple[Any, Any]:
        torch.manual_seed(0)
        recipe_ = replace(recipe, objective=name)
        return make_objective(Built(recipe=recipe_, start=start, collate=collate, half_width={}))

    pages = [open_source("pages", 3).sample(index, 0) for index in range(2)]
    (alone, scenes), (beside, both) = objective("align"), objective("align_sheets")
    batches = scenes([page.scene for page in pages]), both(pages)
    losses = [
        float(terms.language_sum.detach()) / terms.language_tokens
        for task, batch in zip((alone, beside), batches, strict=True)
        for terms in [task.module(batch)]
    ]
    drawn = both(pages)
    sheet_P = drawn.places_P < 0
    assert sheet_P.sum() == sum(sheet.characters.size for page in pages for sheet in page.sheets)
    shown_PW = beside.module.visual(drawn.pixel_values_PX, drawn.grid_thw_N3).last_hidden_state
    asked = functional.cross_entropy(beside.module.characters(shown_PW[sheet_P]).float(), drawn.characters_P[sheet_P])
    assert losses[1] - losses[0] == pytest.approx(float(asked), abs=1e-4)
