# SPDX-License-Identifier: Apache-2.0
"""The decoder's cached forward equals transformers' uncached one, and every way to go on agrees with every other."""

from dataclasses import replace

import pytest
import torch

from chatvla_policy.model.decode import DecodeError, Decoder
from chatvla_policy.model.moe import Path, Routing, routing

TOKENS = 8
NO_STOP = frozenset()


@pytest.fixture(scope="module", params=["dense", "mixture"])
def decoder(request):
    return Decoder(request.getfixturevalue(request.param))


def prefill(decoder, prompt, room=64, **more):
    return decoder.prefill(
        prompt.input_ids,
        attention_mask_BT=prompt.attention_mask,
        pixel_values=prompt.pixel_values,
        image_grid_thw=prompt.image_grid_thw,
        room=room,
        **more,
    )


def transformers_forward(decoder, prompt, extra):
    """Return transformers' uncached logits and hidden states of the prompt with `extra` (B, N) behind each row."""
    rows = []
    for row, mask in enumerate(prompt.attention_mask.bool()):
        ids = torch.cat([prompt.input_ids[row][mask], extra[row]])[None]
        inputs = {"input_ids": ids}
        if prompt.pixel_values is not None:
            image = ids == prompt.image_token_id
            counts = [int((prompt.input_ids[i] == prompt.image_token_id).sum()) * 4 for i in range(len(extra))]
            first = sum(counts[:row])
            areas = prompt.image_grid_thw.prod(-1).cumsum(0)
            grids = prompt.image_grid_thw[(areas > first) & (areas <= first + counts[row])]
            if len(grids):
                pixels = prompt.pixel_values[first : first + counts[row]]
                inputs |= {"pixel_values": pixels, "image_grid_thw": grids, "mm_token_type_ids": image.int()}
        with torch.no_grad():
            hidden = decoder.backbone.model(**inputs).last_hidden_state
            rows.append((decoder.logits(hidden)[0], hidden[0]))
    return rows


def near(found, wanted, tolerance):
    torch.testing.assert_close(found, wanted, rtol=0, atol=10 * tolerance * float(wanted.std()))


def test_prefill_equals_transformers(decoder, prompt, tolerance):
    with torch.no_grad():
        wanted = decoder.backbone(**prompt.inputs(), output_hidden_states=True)
    state = prefill(decoder, prompt)
    valid = prompt.attention_mask.bool()
    near(state.prompt_hidden_BTD[valid], wanted.hidden_states[-1][valid], tolerance)
    near(decoder.logits(state.prompt_hidden_BTD)[valid], wanted.logits[valid], tolerance)


def test_step_by_step_equals_transformers_uncached(decoder, prompt, tolerance):
    state = prefill(decoder, prompt)
    made = decoder.generate(state, max_new_tokens=TOKENS, stop_ids=NO_STOP)
    for row, (logits, hidden) in enumerate(transformers_forward(decoder, prompt, made.tokens_BN)):
        assert torch.equal(made.tokens_BN[row], logits[-TOKENS - 1 : -1].argmax(-1))
        near(made.hidden_BND[row], hidden[-TOKENS:], tolerance)
    assert len(made.tokens_BN.unique()) > 1


def test_generates_what_transformers_generates(decoder, prompt):
    made = decoder.generate(prefill(decoder, prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    if not bool(prompt.attention_mask[:, -1].all()):
        pytest.skip("transformers generates from left padding only")
    options = {"max_new_tokens": TOKENS, "do_sample": False, "eos_token_id": 10**6, "pad_token_id": 0}
    wanted = decoder.backbone.generate(**prompt.inputs(), **options)
    assert torch.equal(made.tokens_BN, wanted[:, prompt.input_ids.shape[1] :])


def test_every_token_has_a_hidden_state_the_stop_token_too(decoder, image_prompt):
    free = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    stop = int(free.tokens_BN[0, 4])
    first = free.tokens_BN[0].tolist().index(stop)
    state = prefill(decoder, image_prompt)
    made = decoder.generate(state, max_new_tokens=TOKENS, stop_ids={stop})
    assert made.tokens_BN[0].tolist() == free.tokens_BN[0, : first + 1].tolist()
    assert made.hidden_BND.shape[1] == first + 1 == int(made.lengths_B[0])
    assert state.length == image_prompt.input_ids.shape[1] + first + 1
    assert torch.equal(made.hidden_BND[:, -1], state.hidden_BD)


def test_forced_equals_generated(decoder, prompt, tolerance):
    state = prefill(decoder, prompt)
    mark = state.mark()
    made = decoder.generate(state, max_new_tokens=TOKENS, stop_ids=NO_STOP)
    state.rewind(mark)
    near(decoder.forward_text(state, made.tokens_BN), made.hidden_BND, tolerance)


def test_queries_see_prompt_and_text(decoder, prompt, tolerance):
    """Embeddings behind a generated text get the hidden states of one uncached forward over everything."""
    state = prefill(decoder, prompt)
    made = decoder.generate(state, max_new_tokens=TOKENS, stop_ids=NO_STOP)
    queries = torch.randint(0, 400, (len(made.tokens_BN), 5), device=made.tokens_BN.device)
    found = decoder.forward_embeds(state, decoder.language.embed_tokens(queries))
    rows = transformers_forward(decoder, prompt, torch.cat([made.tokens_BN, queries], 1))
    for row, (_, hidden) in enumerate(rows):
        near(found[row], hidden[-5:], tolerance)


def test_tail_in_the_prompt_forward_equals_the_tail_after_it(decoder, prompt, tolerance):
    ids = torch.randint(0, 400, (len(prompt.input_ids), 5), device=prompt.input_ids.device)
    state = prefill(decoder, prompt)
    wanted = decoder.forward_text(state, ids)
    wanted_next = decoder.forward_text(state, ids[:, :2])
    state = prefill(decoder, prompt, tail_BND=decoder.language.embed_tokens(ids).detach())
    near(state.prompt_hidden_BTD[:, -5:], wanted, tolerance)
    near(decoder.forward_text(state, ids[:, :2]), wanted_next, tolerance)


def test_rows_that_stop_early_do_not_disturb_what_follows(decoder, padded_prompt, tolerance):
    free = decoder.generate(prefill(decoder, padded_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    stop = int(free.tokens_BN[0, 1])
    state = prefill(decoder, padded_prompt)
    made = decoder.generate(state, max_new_tokens=TOKENS, stop_ids={stop})
    assert int(made.lengths_B[0]) < TOKENS
    queries = torch.randint(0, 400, (len(made.tokens_BN), 3), device=made.tokens_BN.device)
    found = decoder.forward_embeds(state, decoder.language.embed_tokens(queries))
    for row, length in enumerate(made.lengths_B.tolist()):
        assert made.tokens_BN[row, :length].tolist() == free.tokens_BN[row, :length].tolist()
        extra = [made.tokens_BN[i, :length] if i == row else made.tokens_BN[i] for i in range(len(queries))]
        extra = [torch.cat([text, query]) for text, query in zip(extra, queries, strict=True)]
        near(found[row], transformers_forward(decoder, padded_prompt, extra)[row][1][-3:], tolerance)


def test_texts_of_unequal_length_are_forced_together(decoder, padded_prompt, tolerance):
    rows = len(padded_prompt.input_ids)
    ids = torch.randint(0, 400, (rows, 6), device=padded_prompt.input_ids.device)
    lengths = [6, 2, 4]
    valid = torch.arange(6, device=ids.device) < torch.tensor(lengths, device=ids.device)[:, None]
    state = prefill(decoder, padded_prompt)
    found = decoder.forward_text(state, ids, valid)
    after = decoder.forward_text(state, ids[:, :2])
    for row, length in enumerate(lengths):
        extra = [torch.cat([ids[i, :length] if i == row else ids[i], ids[i, :2]]) for i in range(rows)]
        hidden = transformers_forward(decoder, padded_prompt, extra)[row][1]
        near(found[row, :length], hidden[-2 - length : -2], tolerance)
        near(after[row], hidden[-2:], tolerance)


def test_rewind_forgets_and_fork_is_independent(decoder, image_prompt):
    state = prefill(decoder, image_prompt)
    mark, twin = state.mark(), state.fork()
    first = decoder.generate(state, max_new_tokens=TOKENS, stop_ids=NO_STOP)
    decoder.forward_text(state, torch.ones(1, 3, dtype=torch.long, device=state.hidden_BD.device))
    state.rewind(mark)
    for again in (state, twin):
        made = decoder.generate(again, max_new_tokens=TOKENS, stop_ids=NO_STOP)
        assert torch.equal(made.hidden_BND, first.hidden_BND)


@pytest.mark.parametrize("wrong_at", [None, 0, 3, TOKENS - 1])
@pytest.mark.parametrize("length", [3, TOKENS, TOKENS + 4])
def test_draft_never_changes_the_text(decoder, image_prompt, wrong_at, length, tolerance):
    device = image_prompt.input_ids.device
    wanted = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    draft = torch.cat([wanted.tokens_BN, torch.ones(1, 4, dtype=torch.long, device=device)], 1)[:, :length].clone()
    if wrong_at is not None and wrong_at < length:
        draft[0, wrong_at] = (draft[0, wrong_at] + 1) % 400
    state = prefill(decoder, image_prompt)
    pauses = []
    made = decoder.verify(
        state, draft, max_new_tokens=TOKENS, stop_ids=NO_STOP, pause=lambda: pauses.append(state.length)
    )
    assert torch.equal(made.tokens_BN, wanted.tokens_BN)
    assert len(pauses) == TOKENS - made.accepted, "a pause before each token that is no draft's"
    near(made.hidden_BND, wanted.hidden_BND, tolerance)
    same = min(length, TOKENS)
    assert made.accepted == (same if wrong_at is None or wrong_at >= length else wrong_at)
    assert state.length == image_prompt.input_ids.shape[1] + TOKENS == state.prompt_length + int(made.lengths_B[0])


@pytest.mark.parametrize("draft_from", ["itself", "free", "nothing"])
def test_a_text_begins_with_one_of_its_openings(decoder, image_prompt, draft_from, tolerance):
    def generate(**more):
        return decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP, **more)

    free = generate()
    first = int(free.tokens_BN[0, 0])
    assert torch.equal(generate(openings={first, 3}).tokens_BN, free.tokens_BN)
    likely = decoder.logits(prefill(decoder, image_prompt).hidden_BD)[0].argsort(descending=True)
    openings = {int(likely[5]), int(likely[9])}
    begun = generate(openings=openings)
    assert int(begun.tokens_BN[0, 0]) == int(likely[5])
    drafts = {"itself": begun.tokens_BN, "free": free.tokens_BN, "nothing": free.tokens_BN[:, :0]}
    made = decoder.verify(
        prefill(decoder, image_prompt), drafts[draft_from], max_new_tokens=TOKENS, stop_ids=NO_STOP, openings=openings
    )
    assert torch.equal(made.tokens_BN, begun.tokens_BN)
    assert made.accepted == (TOKENS if draft_from == "itself" else 0)
    near(made.hidden_BND, begun.hidden_BND, tolerance)


def test_a_prompt_that_is_read_in_pieces_is_the_same(decoder, image_prompt, tolerance):
    rows = 3
    several = {
        "pixel_values": torch.cat([image_prompt.pixel_values + 0.1 * row for row in range(rows)]),
        "image_grid_thw": image_prompt.image_grid_thw.repeat(rows, 1),
    }
    ids_BT = image_prompt.input_ids.repeat(rows, 1)
    pauses = []
    pieces = decoder.prefill(ids_BT, **several, pause=lambda: pauses.append(1))
    near(pieces.hidden_BD, decoder.prefill(ids_BT, **several).hidden_BD, tolerance)
    assert len(pauses) == rows + 1


def test_draft_with_a_stop_token_ends_where_generation_ends(decoder, image_prompt):
    free = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    stops = {int(free.tokens_BN[0, 4])}
    wanted = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=stops)
    for draft in (free.tokens_BN, wanted.tokens_BN, wanted.tokens_BN[:, :-1], wanted.tokens_BN[:, :0]):
        made = decoder.verify(prefill(decoder, image_prompt), draft, max_new_tokens=TOKENS, stop_ids=stops)
        assert torch.equal(made.tokens_BN, wanted.tokens_BN)


def test_rows_that_agree_write_what_their_mean_says(decoder, image_prompt, tolerance):
    rows = 3
    noise = torch.Generator().manual_seed(0)
    pixels = torch.cat([image_prompt.pixel_values] * rows)
    pixels = pixels + 2.0 * torch.randn(pixels.shape, generator=noise).to(pixels)
    several = replace(
        image_prompt,
        input_ids=image_prompt.input_ids.expand(rows, -1),
        attention_mask=image_prompt.attention_mask.expand(rows, -1),
        pixel_values=pixels,
        image_grid_thw=image_prompt.image_grid_thw.repeat(rows, 1),
    )
    made = decoder.generate(prefill(decoder, several), max_new_tokens=TOKENS, stop_ids=NO_STOP, agree=True)
    assert (made.tokens_BN == made.tokens_BN[:1]).all()
    chances = [
        logits[-TOKENS - 1 : -1].log_softmax(-1) for logits, _ in transformers_forward(decoder, several, made.tokens_BN)
    ]
    assert torch.equal(made.tokens_BN[0], torch.stack(chances).mean(0).argmax(-1))
    alone = decoder.generate(prefill(decoder, several), max_new_tokens=TOKENS, stop_ids=NO_STOP)
    assert len(alone.tokens_BN.unique(dim=0)) > 1
    for length in (3, TOKENS):
        state = prefill(decoder, several)
        again = decoder.verify(state, made.tokens_BN[:1, :length], max_new_tokens=TOKENS, stop_ids=NO_STOP)
        assert torch.equal(again.tokens_BN, made.tokens_BN)
        assert again.accepted == length
        near(again.hidden_BND, made.hidden_BND, tolerance)
    state = state.first_row()
    single = prefill(decoder, replace(several, pixel_values=pixels[: len(pixels) // rows], **one_row(image_prompt)))
    decoder.forward_text(single, made.tokens_BN[:1])
    queries = torch.randn(1, 2, state.prompt_embeds_BTD.shape[-1], generator=noise).to(pixels.device)
    near(decoder.forward_embeds(state, queries), decoder.forward_embeds(single, queries), tolerance)


def one_row(prompt):
    return {
        "input_ids": prompt.input_ids[:1],
        "attention_mask": prompt.attention_mask[:1],
        "image_grid_thw": prompt.image_grid_thw,
    }


def test_sampling_repeats_under_a_seed_and_varies_without(decoder, image_prompt):
    def sample(seed, **options):
        generator = torch.Generator(device=image_prompt.input_ids.device).manual_seed(seed)
        state = prefill(decoder, image_prompt)
        options = {"temperature": 5.0, "generator": generator, **options}
        return decoder.generate(state, max_new_tokens=TOKENS, stop_ids=NO_STOP, **options).tokens_BN

    assert torch.equal(sample(1), sample(1))
    assert not torch.equal(sample(1), sample(2))
    greedy = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=TOKENS, stop_ids=NO_STOP).tokens_BN
    assert torch.equal(sample(3, top_p=1e-6), greedy)


def test_static_path_reaches_the_decoder(upcycled, image_prompt, tolerance):
    model = upcycled(kind="static", different=True)
    decoder = Decoder(model)
    texts = {}
    for path in Path:
        with routing(Routing(path=path)) as trace:
            texts[path] = decoder.generate(prefill(decoder, image_prompt), max_new_tokens=4, stop_ids=NO_STOP)
            with torch.no_grad():
                wanted = model.model(**image_prompt.inputs()).last_hidden_state
        near(prefill_hidden(decoder, image_prompt, path), wanted, tolerance)
        assert all(int(record.chosen_NK.max()) == path for record in trace.layers[0])
    assert not torch.equal(texts[Path.CONTROL].hidden_BND, texts[Path.UNDERSTANDING].hidden_BND)


def prefill_hidden(decoder, prompt, path):
    with routing(Routing(path=path)):
        return prefill(decoder, prompt).prompt_hidden_BTD


def test_full_cache_is_named(decoder, image_prompt):
    state = prefill(decoder, image_prompt, room=2)
    with pytest.raises(DecodeError, match="3 more asked for; give prefill more room"):
        decoder.forward_text(state, torch.ones(1, 3, dtype=torch.long, device=state.hidden_BD.device))


def test_images_must_match_their_placeholders(decoder, image_prompt):
    with pytest.raises(DecodeError, match="prompt has 0 image tokens; the images give 4"):
        decoder.prefill(
            torch.ones_like(image_prompt.input_ids),
            pixel_values=image_prompt.pixel_values,
            image_grid_thw=image_prompt.image_grid_thw,
        )


def test_mark_outside_the_cache_is_refused(decoder, image_prompt):
    state = prefill(decoder, image_prompt)
    with pytest.raises(DecodeError, match="mark is at token 9999"):
        state.rewind((9999, state.hidden_BD))


def test_decoding_follows_changed_weights(upcycled, image_prompt):
    model = upcycled(different=True)
    decoder = Decoder(model)
    before = prefill(decoder, image_prompt).hidden_BD
    with torch.no_grad():
        model.model.language_model.layers[0].self_attn.q_proj.weight.mul_(1.5)
    assert not torch.equal(prefill(decoder, image_prompt).hidden_BD, before)
