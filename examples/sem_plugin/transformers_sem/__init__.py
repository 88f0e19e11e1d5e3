"""Any Hub text-classification model as a SEM: `EMPO_SEM=transformers:owner/model`.

The model's labels are mapped to the 32 emotions: labels that are among the 32 map to themselves;
for GoEmotions' labels there is a map here; for others a TOML file is named after a hash sign:
``transformers:owner/model#map.toml``. Only the last user turn is read, as in such models' training.
"""

from __future__ import annotations

import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from empo_demo.dialogue import Turn
from empo_demo.empathy.emotions import EMOTIONS
from empo_demo.empathy.feeling import is_content, spans
from empo_demo.errors import SettingsError
from empo_demo.settings import Settings

if TYPE_CHECKING:
    from empo_demo.empathy.reading import Cause, Reading

GO_EMOTIONS = Path(__file__).with_name("go_emotions.toml")
MOST_OCCLUDED = 16
"""How many words are left out in turn to find causes, with one forward pass each, within 2 s."""
LabelMap = Mapping[str, Mapping[str, float]]
"""For each label of the model, its shares of the 32 emotions. "*" means all of them."""


class PipelineSEM:
    """`transformers.pipeline("text-classification")` with a map of its labels.

    Scores are weighted by the map and normalised, so multi-label models (sigmoid) work too. Causes
    are found by occlusion: how much the probability of the top emotion falls without a word. If
    no word matters, all content words get the same weight.
    """

    def __init__(self, model: str, label_map: LabelMap | None = None, *, device: str = "auto"):
        from transformers import pipeline

        where = {} if device == "auto" else {"device": device}
        build: Any = pipeline
        self._pipe: Any = build("text-classification", model=model, top_k=None, **where)
        config = self._pipe.model.config
        self._map = _complete(label_map, [str(label) for label in config.id2label.values()])
        self.name = f"transformers:{model}"
        self.revision = _revision(model, config)

    def read(self, turns: Sequence[Turn]) -> Reading:
        from empo_demo.empathy.reading import Reading

        started = time.perf_counter()
        text = next((turn.content for turn in reversed(turns) if turn.role == "user"), "")
        words = content_words(text)
        occluded = sorted(words, key=lambda word: -len(word[0]))[:MOST_OCCLUDED]
        variants = [text] + [text[:start] + text[start + len(w) :] for w, start in occluded]
        whole, *without = self._distributions(variants)
        ranked = tuple(sorted(whole.items(), key=lambda pair: -pair[1]))
        drops = {
            start: whole[ranked[0][0]] - left[ranked[0][0]]
            for (_, start), left in zip(occluded, without, strict=True)
        }
        return Reading(
            emotions=ranked,
            causes=_causes(words, drops),
            sem=f"{self.name}@{self.revision}",
            milliseconds=(time.perf_counter() - started) * 1000,
        )

    def read_many(self, dialogues: Sequence[Sequence[Turn]]) -> list[Reading]:
        return [self.read(turns) for turns in dialogues]

    def _distributions(self, texts: list[str]) -> list[dict[str, float]]:
        rows = self._pipe(texts, truncation=True, batch_size=len(texts))
        return [self._distribution({row["label"]: row["score"] for row in one}) for one in rows]

    def _distribution(self, scores: Mapping[str, float]) -> dict[str, float]:
        mass = dict.fromkeys(EMOTIONS, 1e-6)
        for label, score in scores.items():
            for emotion, share in self._map[label].items():
                for target in EMOTIONS if emotion == "*" else (emotion,):
                    mass[target] += score * share / (len(EMOTIONS) if emotion == "*" else 1)
        total = sum(mass.values())
        return {emotion: value / total for emotion, value in mass.items()}


def from_settings(settings: Settings, argument: str) -> PipelineSEM:
    """The entry point: `argument` is ``model`` or ``model#map.toml``."""
    model, _, map_file = argument.partition("#")
    if not model:
        raise SettingsError(
            "EMPO_SEM holds 'transformers' without a model; write transformers:owner/model."
        )
    label_map = read_map(Path(map_file).expanduser()) if map_file else None
    return PipelineSEM(model, label_map, device=settings.device)


def read_map(path: Path) -> dict[str, dict[str, float]]:
    """A label map from TOML: ``[labels]`` with ``label = { emotion = share }``."""
    try:
        rows = tomllib.loads(path.read_text(encoding="utf8"))["labels"]
        label_map = {
            str(label): {str(emotion): float(share) for emotion, share in shares.items()}
            for label, shares in rows.items()
        }
    except OSError as error:
        raise SettingsError(f"The label map {path} cannot be read: {error.strerror}.") from None
    except (
        tomllib.TOMLDecodeError,
        KeyError,
        AttributeError,
        TypeError,
        ValueError,
        RecursionError,
    ):
        raise SettingsError(
            f"{path} is no label map; it must hold a TOML table [labels] with rows like "
            "anger = { angry = 0.6, furious = 0.4 }."
        ) from None
    for label, shares in label_map.items():
        unknown = sorted(set(shares) - {*EMOTIONS, "*"})
        if unknown:
            raise SettingsError(
                f"{path} maps {label!r} to {unknown[0]!r}, which is none of the 32 emotions."
            )
        if not shares or min(shares.values()) < 0 or sum(shares.values()) <= 0:
            raise SettingsError(f"{path}: the shares of {label!r} must be positive numbers.")
    return label_map


def content_words(text: str) -> list[tuple[str, int]]:
    """The words with content, each with its start in the text."""
    words = [(text[start:end], start) for start, end in spans(text)]
    return [(word, start) for word, start in words if is_content(word)]


def _complete(given: LabelMap | None, labels: Sequence[str]) -> LabelMap:
    if given is None:
        if set(labels) <= set(EMOTIONS):
            return {label: {label: 1.0} for label in labels}
        given = read_map(GO_EMOTIONS)
    missing = [label for label in labels if label not in given]
    if missing:
        raise SettingsError(
            f"The SEM's model has labels that the map does not know: {', '.join(missing[:4])}. "
            "Name a map with EMPO_SEM=transformers:model#map.toml."
        )
    return given


def _causes(words: Sequence[tuple[str, int]], drops: Mapping[int, float]) -> tuple[Cause, ...]:
    """Weights relative to the word that matters most. If none matters, all content words get 1."""
    from empo_demo.empathy.reading import Cause

    most = max(drops.values(), default=0.0)
    if most <= 0:
        return tuple(Cause(start, start + len(word), word, 1.0) for word, start in words)
    return tuple(
        Cause(start, start + len(word), word, drops[start] / most)
        for word, start in words
        if drops.get(start, 0.0) > 0
    )


def _revision(model: str, config: Any) -> str:
    """The commit on the Hub if it is known, else the hash of the local files."""
    from empo_demo.files import fingerprint

    commit = getattr(config, "_commit_hash", None)
    return str(commit or fingerprint(model) or "unknown")[:12]
