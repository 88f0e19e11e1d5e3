"""Reads the roster of the settings: a preset or a TOML file, own models, recorded replies.

Each contender gets its revision: a short stable hash of everything that its replies depend on. Two
contenders with the same revision give the same distribution of replies to the same messages and
decoding. Hub models count by their id, local ones by their files. Imports no model.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from empo_demo.contenders.roster import Contender, Roster, check_contenders
from empo_demo.contenders.strategies import STRATEGIES
from empo_demo.contenders.toml_file import is_adapter, read_roster, resolve_model
from empo_demo.dialogue import SYSTEM_PROMPT
from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.predictions import HUMAN, is_recording, stem
from empo_demo.engine.protocol import Decoding
from empo_demo.engine.weights.adapters import is_named
from empo_demo.errors import SettingsError
from empo_demo.files import fingerprint
from empo_demo.settings import ASSETS, Quantization, Settings
from empo_demo.smollm2.package import SMOLLM2, fingerprint_of

RECORDED = "empo-recorded"
"""The preset whose files are in the folder that EMPO_ENGINE names."""
PRESETS: dict[str, Path] = {
    "smollm2": ASSETS / "contenders" / "smollm2.toml",
    "tiny": ASSETS / "contenders" / "tiny.toml",
    "empo-7b": ASSETS / "contenders" / "empo-7b.toml",
    RECORDED: ASSETS / "contenders" / "empo-recorded.toml",
}
CHAT_DECODING = Decoding(temperature=0.7, top_p=0.9, repetition_penalty=1.05, max_new_tokens=200)
"""The decoding of models named in EMPO_BASE: chat models write longer replies than the tiny one."""


def load_roster(settings: Settings) -> Roster:
    """The roster of `settings`, with revisions.

    EMPO_PRESET chooses it. EMPO_BASE, EMPO_ALIGNED, EMPO_QUANTIZATION and EMPO_SYSTEM_PROMPT
    override parts of it. Nothing is measured and no server is asked: the engine's `decide` says
    which of the contenders can be served. Raises `SettingsError`, one line, if the roster cannot
    open a round.
    """
    roster = _recorded(settings) or read_roster(
        _preset_path(settings.preset), on_server=_on_server(settings)
    )
    _check_recording(roster, settings)
    roster = _with_own_models(roster, settings)
    roster = replace(
        roster,
        hef_top_k=settings.hef_top_k,
        sem=settings.sem,
        quantization=_quantization(settings, roster),
        system_prompt=settings.system_prompt or roster.system_prompt,
    )
    check_contenders(roster.contenders, where=f"The roster {roster.name!r}")
    revised = tuple(replace(c, revision=revision(c, roster)) for c in roster.contenders)
    return replace(roster, contenders=revised)


def _on_server(settings: Settings) -> bool:
    """Whether EMPO_ENGINE names servers."""
    return "://" in settings.engine


def _quantization(settings: Settings, roster: Roster) -> Quantization:
    """The quantisation of EMPO_QUANTIZATION or the roster. On ZeroGPU, with large GPUs, none."""
    if not on_zero_gpu():
        return settings.quantization or roster.quantization
    if settings.quantization not in (None, "none"):
        raise SettingsError(
            f"EMPO_QUANTIZATION holds {settings.quantization!r}, but on ZeroGPU models run in "
            "16 bit (48 GB are there): unset it, or choose a Space with a GPU of its own."
        )
    return "none"


def _preset_path(preset: str) -> Path:
    if preset in PRESETS:
        return PRESETS[preset]
    path = Path(preset).expanduser()
    if path.suffix != ".toml" or not path.is_file():
        raise SettingsError(
            f"EMPO_PRESET holds {preset!r}; it may hold {', '.join(PRESETS)}, "
            "or the path of an existing TOML file of contenders."
        )
    return path


def _recorded(settings: Settings) -> Roster | None:
    """The contenders of the file that EMPO_ENGINE names, or of the preset's files in its folder.

    None if it names neither, or if EMPO_PRESET is a TOML file that lists the recorded contenders.
    """
    if settings.preset == RECORDED:
        return _published(settings)
    if not is_recording(settings.engine):
        return None
    path = Path(settings.engine).expanduser()
    if not path.is_file():
        raise SettingsError(
            f"EMPO_ENGINE holds {settings.engine!r}; it may hold local, URLs of servers, "
            "or the path of an existing predictions file."
        )
    return recorded_roster(path) if settings.preset in PRESETS else None


def _published(settings: Settings) -> Roster:
    """The preset of published replies, with those of its files that are in the user's folder."""
    folder = Path(settings.engine).expanduser()
    known = "EMPO_PRESET=empo-recorded needs EMPO_ENGINE to name the folder of the EmPO authors'"
    if not folder.is_dir():
        raise SettingsError(
            f"{known} prediction files (github.com/justtherightsize/empo, folder predictions); "
            f"it holds {settings.engine!r}."
        )
    try:
        return read_roster(PRESETS[RECORDED], files=folder)
    except SettingsError:
        raise SettingsError(
            f"{known} prediction files, but {folder} holds none of them; download at least "
            "preds_dlr1e6m1000_zephyr-7b-sft-full124_d270_epi.txt from "
            "github.com/justtherightsize/empo, folder predictions."
        ) from None


def _check_recording(roster: Roster, settings: Settings) -> None:
    if is_recording(settings.engine) and not roster.recorded:
        raise SettingsError(
            f"EMPO_ENGINE holds {settings.engine!r}, a file of replies, but no contender of the "
            f"roster {roster.name!r} has predictions; unset EMPO_PRESET, or add predictions = "
            '"FILE" to its contenders.'
        )


def recorded_roster(path: Path) -> Roster:
    """The two contenders of the file at `path`: its replies, with its name, and the human's."""
    file = str(path.expanduser().resolve())
    name = stem(path)
    return Roster(
        f"recorded {name}",
        (
            Contender(name, "", predictions=file, label=name),
            Contender(HUMAN, "", predictions=file, label="A human's reply"),
        ),
        quantization="none",
    )


def _with_own_models(roster: Roster, settings: Settings) -> Roster:
    """`roster` with EMPO_BASE and EMPO_ALIGNED as its base and aligned models.

    An adapter fits only the weights that it was trained on. So if EMPO_BASE replaces the base of an
    embedded pair, its adapters are left out too. They stay for a copy of the same model, and in
    other rosters, where EMPO_BASE may be such a copy.
    """
    if settings.base is None and settings.aligned is None:
        return roster
    contenders, recorded = roster.contenders, None
    if settings.base is not None:
        own = resolve_model(settings.base, Path.cwd(), "EMPO_BASE", on_server=_on_server(settings))
        contenders = _replace_base(roster, own)
    if settings.aligned is not None:
        recorded = resolve_model(
            settings.aligned, Path.cwd(), "EMPO_ALIGNED", on_server=_on_server(settings)
        )
        contenders = _replace_aligned(roster, contenders, recorded)
    if settings.base is None or not roster.embedded or _is_copy(settings, roster):
        return replace(roster, contenders=contenders)
    return replace(
        roster,
        name="own models",
        contenders=tuple(c for c in contenders if c.adapter in (None, recorded)),
        tiny=False,
        hints="full",
        quantization="nf4",
        system_prompt=SYSTEM_PROMPT,
        decoding=CHAT_DECODING,
    )


def _is_copy(settings: Settings, roster: Roster) -> bool:
    """Whether EMPO_BASE is the base of the embedded pair, under a name of its own."""
    if roster.tiny or settings.base is None:
        return False
    return settings.force_adapter or is_named(settings.base, SMOLLM2.model)


def _replace_base(roster: Roster, own: str) -> tuple[Contender, ...]:
    first = _named(roster, "base") or roster.contenders[0]
    return tuple(
        replace(_called(c, first, own, roster), base=own) if c.base == first.base else c
        for c in roster.contenders
    )


def _called(contender: Contender, replaced: Contender, own: str, roster: Roster) -> Contender:
    """`contender` with the name of `own` in its label, where it had that of the replaced model.

    A folder of the same name holds the same model. The labels of embedded pairs name none.
    """
    model, name = replaced.adapter or replaced.base, Path(own).name
    if roster.embedded or not replaced.label or Path(model).name.lower() == name.lower():
        return contender
    return replace(contender, label=contender.label.replace(replaced.label, name))


def _replace_aligned(
    roster: Roster, contenders: tuple[Contender, ...], own: str
) -> tuple[Contender, ...]:
    aligned = _named(roster, "aligned")
    if aligned is None:
        raise SettingsError(
            f"EMPO_ALIGNED holds {own!r}, but the roster {roster.name!r} has no contender "
            "'aligned' to replace; add the model to its TOML file instead."
        )
    change = {"adapter": own} if is_adapter(own) else {"base": own, "adapter": None}
    same = (aligned.base, aligned.adapter)
    originals = {c.id: (c.base, c.adapter) for c in roster.contenders}
    return tuple(
        replace(_called(c, aligned, own, roster), **change) if originals[c.id] == same else c
        for c in contenders
    )


def _named(roster: Roster, contender_id: str) -> Contender | None:
    return next((c for c in roster.contenders if c.id == contender_id), None)


def revision(contender: Contender, roster: Roster) -> str:
    """12 hexadecimal digits over model, adapter, strategy, prompt text and quantisation.

    It includes the strategy's own texts. For a guided contender it includes HEF's top k and the
    name of the SEM; the revision of the SEM is stored with each reading.
    """
    strategy = STRATEGIES[contender.strategy]
    parts: dict[str, object] = {
        "base": fingerprint_of(contender.base),
        "adapter": fingerprint(contender.adapter),
        "predictions": fingerprint(contender.predictions),
        "strategy": contender.strategy,
        "prompt": roster.system_prompt,
        "quantization": roster.quantization,
    }
    wording = strategy.wording(tiny=roster.compact_hints)
    if wording:
        parts["guidance"] = wording
    if strategy.guided:
        parts["top_k"] = 1 if roster.compact_hints else roster.hef_top_k
        parts["sem"] = roster.sem
    canonical = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]
