"""Steered generation is what a forward pass written by hand computes, in every way of generating."""

import pytest
import torch

from tests.helpers.steering import (
    FAMILIES,
    LAYERS,
    LOGITS,
    NEW,
    VOCABULARY,
    WIDTH,
    additions,
    assert_logits_by_hand,
    by_hand,
    generate,
    going_on,
    greedy,
    hook_count,
    padded,
    prompts,
    steered_positions,
    tiny,
    vector,
)

# Padding between a prompt and what follows takes up places in a window of attention, so there the padded
# model is another than the one without padding, steered or not.
PADDED = [(f, side) for f in FAMILIES for side in ("left", "right") if (f, side) != ("gemma", "right")]


@pytest.mark.parametrize("cache", [None, "dynamic", "static"])
@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_the_loop_by_hand(family, positions, cache):
    model, sequences = tiny(family), prompts()
    options = {"use_cache": False} if cache is None else {"cache_implementation": cache}
    with vector().apply(model, 1.5, positions=positions):
        out = generate(model, padded(sequences, "left"), **options, **LOGITS)
    expected = [greedy(family, model, prompt, NEW, [(vector(), 1.5)], positions) for prompt in sequences]
    assert out.sequences[:, -NEW:].tolist() == expected
    assert_logits_by_hand(family, model, sequences, out, [(vector(), 1.5)], positions)
    plain = [greedy(family, model, prompt, NEW, []) for prompt in sequences]
    assert plain != expected
    assert generate(model, padded(sequences, "left"))[:, -NEW:].tolist() == plain
    assert hook_count(model) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loop_by_hand_tells_classic_mistakes_apart(family):
    """What a mistake would compute is far from what is right, so the comparisons above would see it."""
    model, (prompt, *_), vectors = tiny(family), prompts(), [(vector(), 1.5)]
    whole = prompt + greedy(family, model, prompt, NEW, vectors, "generated")
    right = steered_positions("generated", len(prompt), len(whole))
    last, length = len(prompt) - 1, len(whole)
    mistakes = {
        "last prompt token left out": [place > last for place in range(length)],
        "nothing after the prompt": [place == last for place in range(length)],
        "one position late in each step": [place > last + 1 for place in range(length)],
        "the whole prompt": [True] * length,
    }
    logits = by_hand(family, model, whole, additions(right, vectors))[last:-1]
    for what, steered in mistakes.items():
        wrong = by_hand(family, model, whole, additions(steered, vectors))[last:-1]
        assert (wrong - logits).abs().max() > 0.02, what


@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize(("family", "side"), PADDED)
def test_a_loop_over_the_model_with_unequal_prompts(family, positions, side):
    """Prompts padded on either side, the model called directly: first the prompts, then token by token."""
    model, sequences = tiny(family), prompts()
    batch = padded(sequences, side)
    mask = batch["attention_mask"]
    places = (mask.cumsum(1) - 1).clamp(min=0)
    columns = torch.tensor([row.nonzero().max() for row in mask])
    made = [[] for _ in sequences]
    with vector().apply(model, positions=positions), torch.no_grad():
        out = model(**batch, position_ids=places, use_cache=True)
        last = out.logits[torch.arange(len(sequences)), columns]
        for step in range(NEW):
            chosen = last.argmax(-1)
            for row, token in zip(made, chosen.tolist(), strict=True):
                row.append(token)
            mask = torch.cat([mask, mask.new_ones(len(sequences), 1)], dim=1)
            at = torch.tensor([[len(prompt) + step] for prompt in sequences])
            out = model(
                input_ids=chosen[:, None],
                attention_mask=mask,
                position_ids=at,
                use_cache=True,
                **going_on(out),
            )
            last = out.logits[:, -1]
    assert made == [greedy(family, model, prompt, NEW, [(vector(), 1)], positions) for prompt in sequences]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize("family", FAMILIES)
def test_exactly_the_positions_asked_for_change(family, positions, side):
    """At the steered layer, padding and unsteered tokens keep every bit; the others move by the direction."""
    model, batch = tiny(family), padded(prompts(), side)
    one = vector([1])
    with torch.no_grad():
        before = model(**batch, output_hidden_states=True).hidden_states[2]
        with one.apply(model, 2, positions=positions):
            after = model(**batch, output_hidden_states=True).hidden_states[2]
    tokens = batch["attention_mask"].bool()
    last = torch.zeros_like(tokens)
    for row, columns in enumerate(tokens):
        last[row, columns.nonzero().max()] = True
    steered = tokens if positions == "all" else last
    assert torch.equal(after[~steered], before[~steered])
    moved = torch.from_numpy(2 * one.directions[1]).expand_as(before[steered])
    torch.testing.assert_close(after[steered] - before[steered], moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", FAMILIES)
def test_half_precision(family, dtype):
    model, sequences = tiny(family, dtype), prompts()
    with vector().apply(model, positions="generated"):
        out = generate(model, padded(sequences, "left"), **LOGITS)
    reference = tiny(family, dtype)
    assert_logits_by_hand(family, reference, sequences, out, [(vector(), 1)], "generated", atol=0.5)
    assert out.logits[0].dtype in (dtype, torch.float32)
    assert {p.dtype for p in model.parameters()} == {dtype}


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_sampling(family, cache):
    model, sequences = tiny(family), prompts()
    torch.manual_seed(3)
    with vector().apply(model, positions="generated"):
        out = generate(
            model,
            padded(sequences, "left"),
            do_sample=True,
            top_k=0,
            num_return_sequences=3,
            use_cache=cache,
            **LOGITS,
        )
    assert len(out.sequences) == 9
    assert_logits_by_hand(family, model, sequences, out, [(vector(), 1)], "generated", expand=3)


@pytest.mark.parametrize("cache", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_beam_search(family, cache):
    """The score of each beam is the sum of its tokens' log-probabilities, by hand."""
    model, sequences = tiny(family), prompts()
    with vector().apply(model, positions="generated"):
        out = generate(
            model,
            padded(sequences, "left"),
            num_beams=3,
            num_return_sequences=2,
            length_penalty=0.0,
            use_cache=cache,
            output_scores=True,
            **LOGITS,
        )
    for row, tokens in enumerate(out.sequences[:, -NEW:].tolist()):
        prompt = sequences[row // 2]
        whole = prompt + tokens
        steered = steered_positions("generated", len(prompt), len(whole))
        logits = by_hand(family, model, whole, additions(steered, [(vector(), 1)]))[len(prompt) - 1 : -1]
        score = logits.log_softmax(-1)[torch.arange(NEW), torch.tensor(tokens)].sum()
        torch.testing.assert_close(out.sequences_scores[row], score, atol=1e-3, rtol=0)


@pytest.mark.parametrize("generated", [True, False])
@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize("cache", [True, False])
def test_a_mask_over_the_prompt(cache, beams, generated):
    model, sequences = tiny("llama"), prompts()
    batch = padded(sequences, "left")
    mask = torch.rand(batch["input_ids"].shape, generator=torch.Generator().manual_seed(0)) < 0.5
    with vector().apply(model, positions=mask.numpy(), generated=generated):
        out = generate(
            model,
            batch,
            use_cache=cache,
            num_beams=beams,
            length_penalty=0.0,
            output_scores=True,
            **LOGITS,
        )
    for row, (prompt, tokens) in enumerate(zip(sequences, out.sequences[:, -NEW:].tolist(), strict=True)):
        steered = mask[row, -len(prompt) :].tolist() + [generated] * NEW
        logits = by_hand("llama", model, prompt + tokens, additions(steered, [(vector(), 1)]))
        logits = logits[len(prompt) - 1 : -1]
        if beams == 1:
            assert tokens == logits.argmax(-1).tolist()
        else:
            score = logits.log_softmax(-1)[torch.arange(NEW), torch.tensor(tokens)].sum()
            torch.testing.assert_close(out.sequences_scores[row], score, atol=1e-3, rtol=0)


@pytest.mark.parametrize("positions", ["all", "generated"])
@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma"])
def test_a_prompt_in_chunks(family, cache, positions):
    model, sequences = tiny(family), prompts((9, 6))
    with vector().apply(model, positions=positions):
        out = generate(
            model, padded(sequences, "left"), prefill_chunk_size=4, cache_implementation=cache, **LOGITS
        )
    assert_logits_by_hand(family, model, sequences, out, [(vector(), 1)], positions)


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize(("family", "windows"), [("llama", False), ("gemma", False), ("gemma", True)])
def test_padding_in_chunks(family, windows, cache):
    """Whatever form the mask takes on its way to the layers, padding keeps every bit."""
    model, batch = tiny(family), padded(prompts((9, 3)), "left")
    if windows:
        model.config.layer_types = ["sliding_attention"] * LAYERS
        for layer in model.model.layers:
            layer.self_attn.is_sliding, layer.self_attn.layer_type = True, "sliding_attention"
            layer.self_attn.sliding_window = model.config.sliding_window

    def outputs():
        kept = []
        hook = model.model.layers[0].register_forward_hook(lambda _m, _a, out: kept.append(out))
        generate(model, batch, max_new_tokens=1, prefill_chunk_size=4, cache_implementation=cache)
        hook.remove()
        return torch.cat([out[0] if isinstance(out, tuple) else out for out in kept], dim=1)

    before, one = outputs(), vector([0])
    with one.apply(model):
        after = outputs()
    tokens = batch["attention_mask"].bool()
    assert torch.equal(after[~tokens], before[~tokens])
    moved = torch.tensor(one.directions[0]).expand_as(before[tokens])
    torch.testing.assert_close(after[tokens] - before[tokens], moved, atol=1e-5, rtol=0)


@pytest.mark.parametrize("positions", ["all", "generated"])
def test_a_prompt_of_embeddings(positions):
    model, (prompt, *_) = tiny("llama"), prompts()
    embedded = model.get_input_embeddings()(torch.tensor([prompt])).detach()
    with vector().apply(model, positions=positions):
        out = model.generate(inputs_embeds=embedded, max_new_tokens=NEW, do_sample=False)
    assert out.tolist() == [greedy("llama", model, prompt, NEW, [(vector(), 1)], positions)]


def test_lookup_of_candidates_in_the_prompt():
    """Assisted decoding checks several tokens in one pass and takes some of them back."""
    model, prompt = tiny("llama"), [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]
    with vector().apply(model, positions="generated"):
        out = generate(model, {"input_ids": torch.tensor([prompt])}, prompt_lookup_num_tokens=3)
    assert out[0, len(prompt) :].tolist() == greedy("llama", model, prompt, NEW, [(vector(), 1)], "generated")


def test_a_second_turn_goes_on_from_the_cache():
    model, (first, second, _) = tiny("llama"), prompts()
    with vector().apply(model, positions="generated"):
        turn = generate(model, {"input_ids": torch.tensor([first])}, return_dict_in_generate=True)
        whole = turn.sequences[0].tolist() + second
        out = generate(model, {"input_ids": torch.tensor([whole])}, **going_on(turn))
    # Each turn is steered from its own prompt's last token on; of the first, what the cache holds stays.
    steered = [len(first) - 1 <= place < len(first) + NEW - 1 for place in range(len(whole))]
    steered[-1] = True
    tokens = list(whole)
    for _ in range(NEW):
        tokens.append(int(by_hand("llama", model, tokens, additions(steered, [(vector(), 1)]))[-1].argmax()))
        steered.append(True)
    assert out[0].tolist() == tokens


def test_recurrent_layers():
    transformers = pytest.importorskip("transformers")
    config = transformers.MambaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        state_size=4,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    model, (prompt, *_) = transformers.MambaForCausalLM(config).eval(), prompts()
    steering = vector([0, 1])
    made = {}
    for cache in (True, False):
        with steering.apply(model, 5, positions="generated"):
            made[cache] = generate(model, {"input_ids": torch.tensor([prompt])}, use_cache=cache).tolist()
    assert made[True] == made[False]
