"""Training the SEM: the whole command on a handful of our own sentences, and its arithmetic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import numbers, parts
from empo_demo.empathy.encoder import Text
from empo_demo.empathy.plugins import load_sem
from empo_demo.empathy.sem import EmbeddedSEM
from empo_demo.errors import DataError, EngineError
from empo_demo.settings import load_settings
from recipes.sem import (
    affect,
    corpora,
    cross_validate_heads,
    heads,
    none_of_these,
    quality,
    teachers,
    told,
    tune,
    turning,
)
from recipes.sem import fit as sem
from recipes.sem.card import missed, table
from recipes.sem.choice import refit, temperature
from recipes.sem.cross_validate_heads import (
    calibrated,
    level_figures,
    macro_f1,
    marks,
)
from recipes.sem.folds import fold_of_seeker, kept_back, outer_fold, tunes
from recipes.sem.intervals import blocks, figure, interval, widened
from recipes.sem.quality import calibration_error
from tests.recipes.sem_data import SENTENCES, write_data, write_encoder, write_lines


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write_encoder(folder)
    return folder


def train(
    data: Path, start: Path, out: Path, seed: int = 0, folds: bool = False, teachers: bool = False
) -> Path:
    sem.run(data, out, epochs=1, runs=2, seed=seed, start=start, folds=folds, teachers=teachers)
    return out


@pytest.fixture(scope="module")
def trained(data: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(data, start, tmp_path_factory.mktemp("sem"), folds=True)


@pytest.mark.slow
def test_one_command_gives_a_sem_that_reads(trained: Path) -> None:
    read = EmbeddedSEM(trained)
    (row,) = read.emotions([["The neighbour scratched my car."]])
    assert row.sum() == pytest.approx(1, abs=1e-9)
    ((_, weights),) = read.read_words([["My", "car", "was", "scratched"]])
    assert len(weights) == 4 and any(weight > 0 for weight in weights)
    meta = json.loads((trained / "sem.json").read_text(encoding="utf8"))
    assert 0 < meta["other"] < 1, "the detector of other texts has its threshold"


@pytest.mark.slow
def test_the_app_reads_with_the_sem_that_was_trained(trained: Path) -> None:
    read = load_sem(load_settings(sem=f"embedded:{trained}")).read([Turn("user", "I was alone.")])
    assert read.sem == EmbeddedSEM(trained).label != EmbeddedSEM().label
    assert len(read.emotions) == 32


@pytest.mark.slow
def test_the_card_shows_every_figure_with_its_interval(trained: Path) -> None:
    card = (trained / "README.md").read_text(encoding="utf8")
    figures = json.loads((trained / "figures.json").read_text(encoding="utf8"))
    assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
    assert all(f"| {row['name']} |" in card for row in figures)
    assert all(row["low"] <= row["value"] <= row["high"] for row in figures if row["n"] > 1)


@pytest.mark.slow
def test_every_dialogue_of_the_validation_split_is_measured_and_none_trained_on(
    trained: Path, data: Path
) -> None:
    figures = json.loads((trained / "figures.json").read_text(encoding="utf8"))
    counts = {row["name"]: row["n"] for row in figures}
    assert counts["emotions, situations, top-1 %"] == 20
    assert counts["causes, top-1 recall %"] == 20
    back = [i for i in range(20) if kept_back(f"train:{i}")]
    assert counts["emotions, contexts of known writers, top-1 %"] == len(back) > 0
    assert counts["valence, Pearson r (EmoBank)"] == 10
    assert counts["valence, Spearman of label means with word norms (ED contexts)"] == 5


@pytest.mark.slow
def test_the_trained_sem_has_a_spread_and_a_90_per_cent_set(trained: Path) -> None:
    sem = EmbeddedSEM(trained)
    (reading,) = sem.read_many([[Turn("user", "My car was scratched")]])
    (feeling,) = sem.feelings(["My car was scratched"])
    assert feeling.spread is not None
    assert feeling.spread > 0
    assert [word.text for word in feeling.words] == ["My", "car", "was", "scratched"]
    assert 1 <= len(reading.likely) <= 32


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights(
    trained: Path, data: Path, start: Path, tmp_path: Path
) -> None:
    again = train(data, start, tmp_path)
    name = "model.safetensors"
    assert (again / name).read_bytes() == (trained / name).read_bytes()


def examples_of(data: Path, texts: corpora.Texts) -> list[sem.Example]:
    found = corpora.situations(sem.read_conversations(data, "train"), texts)
    smooth = corpora.soft_labels()
    return [tune.Example(e.text, "emotions", smooth[e.label]) for e in found]


@pytest.mark.slow
def test_every_long_step_shows_its_progress(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # At full size, minutes passed without a word after the encoder: the heads' steps were silent.
    titles: list[str] = []

    def noted(items: Sequence[Any], title: str) -> Iterator[Any]:
        titles.append(title)
        yield from items

    for module in (corpora, cross_validate_heads, heads, tune):
        monkeypatch.setattr(module, "progress", noted)
    train(data, start, tmp_path / "out")
    for title in (
        "GoEmotions' comments",
        "sentiment",
        "dialogues",
        "run-0",
        "contexts and situations",
        "texts with cause words",
        "cause words, epochs",
        "valence",
        "sentences without a word",
        "EPITOME, texts",
        "EPITOME fold 1 of 5, texts",
        "cause words, fold 1 of 3",
        "EPITOME, levels of pairs",
    ):
        assert title in titles


def test_a_finished_stage_is_not_trained_again(data: Path, start: Path, tmp_path: Path) -> None:
    net, texts = sem.pretrained(start)
    plan = tune.mixed([(examples_of(data, texts), 1)], "0")
    tune.tune(net, None, plan, tmp_path, rate=1e-3, seed=0)
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    fresh, _ = sem.pretrained(start)
    tune.tune(fresh, None, plan, tmp_path, rate=1e-3, seed=0)
    assert all(torch.equal(value, expected[name]) for name, value in fresh.state_dict().items())


def test_tasks_are_mixed_evenly_and_each_goes_on_for_its_epochs(data: Path, start: Path) -> None:
    _, texts = sem.pretrained(start)
    one = examples_of(data, texts) * 40
    two = [tune.Example(e.text, "affect", (0.0, 0.0)) for e in one[:400]]
    tasks = [batch[0].task for batch in tune.mixed([(one, 1), (two, 3)], "0")]
    assert tasks.count("emotions") == 13
    assert tasks.count("affect") == 21
    assert 5 < tasks[: len(tasks) // 2].count("emotions") < 9


def test_pruning_keeps_english_and_drops_other_scripts(start: Path) -> None:
    net, texts = sem.pretrained(start)
    kept = sem.kept_pieces(texts)
    vocabulary = texts.tokenizer.get_vocab()
    assert {vocabulary[piece] for piece in ("a", "##a", "car", "[CLS]", "zebra")} <= set(kept)
    assert vocabulary["д"] not in kept
    pruned = sem.prune(net, texts, kept)
    assert "д" not in pruned.tokenizer.get_vocab()
    assert net.encoder.get_input_embeddings().weight.shape[0] == len(kept)
    assert len(pruned.turns(["zebra"]).ids) == 3


@pytest.mark.slow
def test_a_tensor_larger_than_a_shard_is_taken_apart_and_joined(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from empo_demo.empathy import encoder

    net, texts, meta = encoder.load(trained)
    monkeypatch.setattr(encoder, "PART", 50)
    encoder.save(net, texts, meta, tmp_path)
    again, _, _ = encoder.load(tmp_path)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    monkeypatch.setattr(encoder, "PART", 10**6)
    encoder.save(net, texts, meta, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_loss_that_is_no_number_stops_with_one_line(start: Path) -> None:
    net, _ = sem.pretrained(start)
    optimizer = torch.optim.AdamW(net.parameters())
    with pytest.raises(EngineError, match="last checkpoint is kept"):
        tune._step(net, torch.tensor(float("nan")), optimizer, tune._linear(optimizer, 1, 1))


def test_a_folder_without_the_files_is_named(start: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"emobank\.train"):
        train(tmp_path, start, tmp_path / "out")


def test_a_malformed_line_is_named_with_its_number(data: Path, start: Path, tmp_path: Path) -> None:
    _, texts = sem.pretrained(start)
    write_lines(tmp_path / "emocause.valid.jsonl.gz", [{"conv_id": "valid:0"}])
    with pytest.raises(DataError, match="line 1"):
        corpora.cause_examples(tmp_path, texts)
    write_lines(tmp_path / "emobank.train.jsonl.gz", [{"id": "a_1", "text": "x", "valence": "?"}])
    with pytest.raises(DataError, match="line 1"):
        affect.emobank(tmp_path, texts, "train")
    write_lines(tmp_path / "goemotions.train.jsonl.gz", [{"text": "x"}])
    with pytest.raises(DataError, match="line 1"):
        corpora.go_emotions(tmp_path, texts.turns)


def test_a_rationale_is_found_in_the_tokens_of_the_response(start: Path, tmp_path: Path) -> None:
    _, texts = sem.pretrained(start)
    row = {
        "sp_id": "post",
        "seeker_post": "I was alone",
        "response_post": "my car! alone born",
        "levels": {"emotional_reactions": 2, "interpretations": 0, "explorations": 1},
        "rationales": {
            "emotional_reactions": ["alone born"],
            "interpretations": [],
            "explorations": ["car!"],
        },
    }
    write_lines(tmp_path / "epitome.train.jsonl.gz", [row])
    (pair,) = corpora.epitome_pairs(tmp_path, texts, ("train",))
    pieces = [texts.tokenizer.id_to_token(i) for i in pair.text.ids]
    emotional, explorations, interpretations = (
        [pieces[place] for place in places] for places in pair.rationales
    )
    assert (emotional, explorations, interpretations) == (["alone", "born"], ["car", "!"], [])
    assert pair.levels == (2, 1, 0)


def test_a_question_at_the_end_of_a_long_reply_is_read(start: Path) -> None:
    _, texts = sem.pretrained(start)
    pair = texts.pair("alone " * 200, "car " * 120 + "alone ?" + " born" * 50)
    reply = [i for i, segment in zip(pair.ids, pair.segments, strict=True) if segment == 2]
    assert len(reply) == 128 and pair.segments.count(1) == 48
    assert texts.tokenizer.id_to_token(reply[121]) == "?"


@pytest.mark.slow
def test_the_levels_do_not_depend_on_the_padding_beside_them(trained: Path) -> None:
    read = EmbeddedSEM(trained)
    short, long = ("I was alone", "I am so sorry"), ("I was alone", "car " * 100)
    (alone,), (beside, _) = read.epitome([short]), read.epitome([short, long])
    assert alone.ip.probabilities == pytest.approx(beside.ip.probabilities, abs=1e-2)


def test_other_settings_do_not_go_on_with_these_checkpoints(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sem, "finish", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, start, tmp_path)
    with pytest.raises(DataError, match="seed is 0 there and 1 now"):
        train(data, start, tmp_path, seed=1)


@pytest.mark.slow
def test_a_finished_training_leaves_no_checkpoints(trained: Path) -> None:
    assert not (trained / "checkpoints").exists()


@pytest.mark.slow
def test_the_emotions_are_cross_validated_over_all_dialogues(trained: Path) -> None:
    """Every dialogue of both splits is read once, by an encoder that saw nothing of its block."""
    figures = {row["name"]: row for row in json.loads((trained / "figures.json").read_text())}
    assert figures["emotions, contexts, cross-validated, top-1 %"]["n"] == 40
    assert figures["emotions, contexts of ED-train, cross-validated, top-1 %"]["n"] == 20
    assert figures["emotions, situations, cross-validated, top-5 %"]["n"] == 40


def test_neighbouring_tasks_share_a_fold_and_no_fold_chooses_on_itself() -> None:
    names = [f"hit:{task}_conv:{task}" for task in range(0, 12_425, 7)]
    for name in names:
        task = int(name.split("_")[0][4:])
        first = task - task % 400
        assert outer_fold(name) == outer_fold(f"hit:{first}_conv:1")
        assert not tunes(name, outer_fold(name))
    sizes = [sum(outer_fold(name) == fold for name in names) / len(names) for fold in range(3)]
    assert min(sizes) > 0.3
    assert all(any(tunes(name, fold) for name in names) for fold in range(3))


def test_a_start_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no encoder"):
        sem.pretrained(tmp_path)


def test_a_teacher_reads_only_dialogues_that_it_was_not_trained_on(
    data: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, texts = sem.pretrained(start)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    seen = sem.read_conversations(data, "train")
    # The first turns repeat; the situation is each dialogue's own.
    situations = {tuple(texts.turns([c.situation]).ids): c.conv_id for c in seen}
    assert len(situations) == len(seen)
    steps: list[set[str]] = []
    train_emotions, taught = teachers.train_emotions, teachers._taught

    def note(examples: Sequence[tune.Example]) -> None:
        own = [tuple(example.text.ids) for example in examples]
        steps.append({situations[ids] for ids in own if ids in situations})

    def noted_train(net: Any, examples: Sequence[tune.Example], *rest: Any, **also: Any) -> None:
        note(examples)
        train_emotions(net, examples, *rest, **also)

    def noted_read(net: Any, examples: Sequence[tune.Example]) -> list[tune.Example]:
        note(examples)
        return taught(net, examples)

    monkeypatch.setattr(teachers, "train_emotions", noted_train)
    monkeypatch.setattr(teachers, "_taught", noted_read)
    found = teachers.taught_examples(net, texts, seen, [], tmp_path, epochs=1, seed=0, name="run")
    trained, read, trained_then, read_then = steps
    everything = {c.conv_id for c in seen}
    assert trained and read and not trained & read and trained | read == everything
    assert (trained_then, read_then) == (read, trained)
    assert len(found) == len(tune.emotion_examples(seen, texts)) == 40
    for example in found:
        assert sum(example.target) == pytest.approx(1, abs=1e-5)
        assert max(example.target) < 0.8
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.slow
def test_the_command_learns_from_teachers(data: Path, start: Path, tmp_path: Path) -> None:
    out = train(data, start, tmp_path / "taught", folds=True, teachers=True)
    assert json.loads((out / "sem.json").read_text())["teachers"] is True
    assert "| teachers | True |" in (out / "README.md").read_text(encoding="utf8")
    plain = train(data, start, tmp_path / "plain")
    one, other = (EmbeddedSEM(folder).emotions([["I was alone."]]) for folder in (out, plain))
    assert not np.allclose(one, other)


def test_related_emotions_share_the_smoothing() -> None:
    rows = corpora.soft_labels()
    assert all(sum(row) == pytest.approx(1) for row in rows)
    angry, furious, joyful = (corpora.INDEX[name] for name in ("angry", "furious", "joyful"))
    assert rows[angry][angry] > 0.8 > rows[angry][furious] > rows[angry][joyful] > 0


def test_the_temperature_undoes_a_scaling_of_the_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    assert temperature(logits * 2, labels) == pytest.approx(2, rel=0.1)


def test_calibration_error_is_the_gap_between_certainty_and_truth() -> None:
    assert calibration_error(np.full(10, 0.9), np.full(10, 1.0)) == pytest.approx(0.1)
    assert calibration_error(np.array([0.5] * 4), np.array([1.0, 0, 1, 0])) == pytest.approx(0)


def test_an_interval_draws_whole_groups() -> None:
    values = np.array([0.0, 1.0] * 50)
    alone = interval([str(i) for i in range(100)], lambda i: float(values[i].mean()))
    grouped = interval([str(i % 2) for i in range(100)], lambda i: float(values[i].mean()))
    assert grouped == (0.0, 1.0)
    assert 0.35 < alone[0] < 0.5 < alone[1] < 0.65


def test_cause_recall_counts_found_words_over_all_cause_words() -> None:
    text = corpora.Text([], [], [])
    example = corpora.CauseExample("c", ("the", "tire", "burst"), frozenset({1, 2}), text)
    assert corpora.recall([example], [[0.1, 0.9, 0.5]], 1) == [0.5]
    assert corpora.ceiling([example], 1) == [0.5]
    assert corpora.recall([example], [[0.1, 0.9, 0.5]], 3) == [1.0]


def test_a_rare_level_that_is_never_given_is_seen() -> None:
    """The accuracy hides it, and the macro-F1 does not tell which level it is."""
    levels = [(0, 0, (0, 2)[i % 2] if i > 2 else 1) for i in range(90)]
    pairs = [
        corpora.Pair(f"s{i}", "", "", Text([], [], []), one, ((), (), ()))
        for i, one in enumerate(levels)
    ]
    said = np.array([(0, 0, 0 if one[2] == 1 else one[2]) for one in levels])
    found = {row["name"]: row for row in level_figures(pairs, said)}
    assert found["EPITOME IP, accuracy (level 1: 3 pairs)"]["value"] > 0.96
    rare = found["EPITOME IP, F1 of level 1"]
    assert (rare["value"], rare["high"], rare["n"]) == (0, 0, 3)


def test_macro_f1_weighs_every_level_alike() -> None:
    truth, said = np.array([0, 0, 0, 1]), np.array([0, 0, 0, 0])
    assert macro_f1(truth, said) == pytest.approx((6 / 7 + 0) / 2)


def test_all_pairs_of_a_seeker_post_share_a_fold() -> None:
    folds = {fold_of_seeker(f"post{i}") for i in range(100)}
    assert folds == set(range(5))
    assert fold_of_seeker("post1") == fold_of_seeker("post1")


def test_a_weight_becomes_the_share_of_words_that_people_mark() -> None:
    text = corpora.Text([], [], [])
    rows = [
        corpora.CauseExample(f"c{i}", ("tire", "burst"), frozenset({0} if i % 4 else {1}), text)
        for i in range(400)
    ]
    logits = [[3.0, -1.0]] * 400
    scale, shift = calibrated(rows, logits, range(400))
    chance = 1 / (1 + np.exp(-scale * 3.0 - shift))
    assert chance == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize(
    ("chances", "expected"),
    [([0.9, 0.9, 0.9, 0.9], [1, 2, 3]), ([0.1, 0.2, 0.9, 0.3], [2]), ([0.9, 0.2, 0.1, 0.1], [])],
)
def test_as_many_words_are_marked_as_deserve_it(chances: list[float], expected: list[int]) -> None:
    assert sorted(marks(["the", "tire", "burst", "loudly"], chances)) == expected


def test_neighbouring_tasks_are_one_block_and_other_writers_vary_too() -> None:
    assert blocks(["hit:3_conv:6", "hit:399_conv:800", "hit:400_conv:801"]) == ["0", "0", "1"]
    low, high = widened(50.0, (48.0, 53.0))
    assert low == pytest.approx(50 - 2 * 2**0.5)
    assert high == pytest.approx(50 + 3 * 2**0.5)


def test_the_pushes_foretell_what_leaving_a_word_out_does(data: Path, start: Path) -> None:
    net, texts = sem.pretrained(start)
    torch.manual_seed(0)
    torch.nn.init.normal_(net.affect.weight)
    sentences = [f"{one} {two} alone" for one in SENTENCES.values() for two in ("car", "born")] * 3
    assert affect.fit_pushes(net, texts, sentences) > 0.3


def test_two_of_three_errors_lie_within_the_spread_although_some_are_far_off() -> None:
    rng = np.random.default_rng(0)
    size = rng.uniform(0, 0.6, 20_000)
    error = np.abs(rng.standard_t(3, 20_000)) * (0.1 + 0.2 * size)
    base, slope = affect.spread(size, error)
    assert float((error <= base + slope * size).mean()) == pytest.approx(0.683, abs=0.002)
    for part in (size < 0.2, size > 0.4):
        assert float((error <= base + slope * size)[part].mean()) == pytest.approx(0.683, abs=0.02)
    assert slope / base == pytest.approx(2.0, rel=0.15)


def test_a_refitted_head_reads_what_the_trained_one_could_not(start: Path) -> None:
    net, _ = sem.pretrained(start)
    size = net.emotion.in_features
    x = torch.randn(300, 2 * size, generator=torch.Generator().manual_seed(0))
    labels = (x[:, size] > 0).long()
    weight, bias = refit(net, x, labels, 0.01)
    assert ((x @ weight.T + bias).argmax(1) == labels).float().mean() > 0.95
    kept, _ = refit(net, x, labels, 1e6)
    assert torch.allclose(kept[:, :size], net.emotion.weight, atol=1e-3)


def test_the_card_says_plainly_what_was_missed() -> None:
    rows = [
        figure("top-1 %", 50.0, 10, 48, 52, baseline=3, ceiling=100, target=(51, 54)),
        figure("ECE", 0.03, 10, 0.02, 0.04, baseline=1, ceiling=0, target=(0.05, 0.03), lower=True),
    ]
    assert missed(rows) == "**Not reached:** top-1 % (50.0).\n"
    assert "| top-1 % | 50.0 | 48.0 to 52.0 | 10 | 3.0 | 100.0 | 51 (54) |" in table(rows)


def test_missing_word_norms_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert quality._label_figures(None, tmp_path) == []  # type: ignore[arg-type]
    assert "warriner.csv" in caplog.text and str(tmp_path) in caplog.text


def test_the_mood_of_a_reply_counts_as_it_meets_the_persons() -> None:
    rng = np.random.default_rng(0)
    said, replies = rng.uniform(-0.4, 0.4, (2, 300))
    truth = 0.1 + 3.0 * said * replies + rng.normal(0, 0.05, 300)
    x = told.design(said, replies)
    assert told.fit(x, truth) == pytest.approx([0.1, 0.0, 0.0, 3.0], abs=0.2)
    assert told.correlation(told.held_out(x, truth), truth) > 0.9
    assert abs(told.correlation(replies, truth)) < 0.3
    assert told.agreement(np.array([1.0, -1.0, 1.0]), np.array([2.0, 2.0, 0.0])) == 0.5


def test_our_own_sentences_of_no_emotion_have_kinds_and_no_double() -> None:
    found = none_of_these.own_sentences()
    assert len({kind for kind, _ in found}) >= 6
    assert len({sentence for _, sentence in found}) == len(found) >= 140
    assert all(kind and sentence.strip() == sentence for kind, sentence in found)


def test_the_gate_of_later_turns_lets_few_real_ones_through() -> None:
    rng = np.random.default_rng(0)
    real, turned = rng.dirichlet(np.ones(32) * 0.3, (2, 200))
    other = rng.dirichlet(np.ones(32) * 0.3, 200)
    x = np.concatenate([numbers(real, 0.9 * real + 0.1 * other), numbers(turned, other)])
    weights, bound = turning._fit(x, np.repeat([0.0, 1.0], 200))
    fired = x @ weights >= bound
    assert fired[:200].mean() == pytest.approx(turning.FIRES, abs=0.01)
    assert fired[200:].mean() > 0.5
    assert parts(turned[0], turned[0], weights, -100.0) is False, (
        "the same label parts from nothing"
    )
    assert parts(real[0], other[0], (), 0.0) is False, "a SEM without a gate has none"
