"""The page as a whole: header, tabs, endpoints, and the launch.

The port opens first. The models load in a thread, and a badge says whether they are ready.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from empo_demo.arena.arena import Arena
from empo_demo.contenders.load_roster import load_roster
from empo_demo.empathy.plugins import load_sem
from empo_demo.engine import loading as engine_loading
from empo_demo.engine.device import on_zero_gpu
from empo_demo.engine.loading import Decision, decide
from empo_demo.engine.protocol import Engine
from empo_demo.errors import ArenaError, Sentence, SettingsError
from empo_demo.exchange.hub import start_pushing
from empo_demo.metrics.valence import load_lexicon
from empo_demo.settings import Settings
from empo_demo.smollm2.obtain import obtain, sentence
from empo_demo.smollm2.package import SMOLLM2, Unavailable
from empo_demo.ui.arena_tab import components as arena_tab
from empo_demo.ui.drawing.parts import Labels
from empo_demo.ui.serving import endpoints
from empo_demo.ui.serving.gradio_patches import Page, install_lanes, progress_only_on, walled
from empo_demo.ui.serving.lanes import UNLISTED
from empo_demo.ui.serving.middleware import Doors, Guard, Health, PackedPage, on_space
from empo_demo.ui.tabs import about_tab, board_tab, data_tab, explore_tab, results_tab
from empo_demo.ui.texts import texts_of
from empo_demo.ui.theme import LANGUAGE, LOOK, MARK, TOGGLE, head, theme
from empo_demo.ui.visitors import LOGIN, STORAGE_KEY, STORAGE_SECRET, say_of
from empo_demo.votes.store import Store

log = logging.getLogger(__name__)
SESSIONS = 2_000
"""Of how many visits at once Explore remembers the turns before the text: kilobytes each."""
TABS = ("arena", "explore", "board", "results", "data", "about")


def launch(settings: Settings, *, block: bool = True) -> gr.Blocks:
    """Open the store, show the page, load the models behind it."""
    roster = load_roster(settings)
    decision = decide(settings, roster)
    lexicon = load_lexicon(settings.nrc_vad)
    store = Store.of(settings)
    for warning in store.warnings:
        log.warning(warning)
    arena = Arena(settings, roster.without(decision.left_out), store)
    start_pushing(store, settings)
    loading = threading.Thread(target=load_models, args=(arena, settings, decision), daemon=True)
    if on_zero_gpu():
        # Only this thread sees ZeroGPU's "cuda", and the launch packs what lies there.
        loading.run()
    else:
        loading.start()
    page = start(arena, lexicon)
    if block:
        page.block_thread()
    return page


def start(arena: Arena, lexicon: Any, *, outermost: Sequence[Any] = (), **more: Any) -> gr.Blocks:
    """Serve the page of `arena` and return while it runs.

    `outermost` are ASGI middlewares around all others; `more` goes to Gradio's `launch`.
    """
    page = build(arena, lexicon)
    threads = install_lanes(page, arena.settings)
    # uvicorn would believe X-Forwarded-For of 127.0.0.1; the Guard decides whom to believe.
    os.environ["FORWARDED_ALLOW_IPS"] = ""
    walls = [*outermost, Middleware(Health, arena=arena)]
    options = {**launch_options(arena.settings, walls), "max_threads": threads, **more}
    options["app_kwargs"]["routes"].append(endpoints.route(arena))
    try:
        page.launch(**options, prevent_thread_lock=True)
    except OSError:
        raise SettingsError(
            f"No port is free for {options['server_name']}: set GRADIO_SERVER_PORT to another one."
        ) from None
    return page


def launch_options(settings: Settings, outermost: Sequence[Any] = ()) -> dict[str, Any]:
    """How the page is served: nothing that phones home, nothing that is not used."""
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    name = os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_space() else "127.0.0.1")
    return {
        "server_name": name,
        "theme": theme(),
        "head": head(),
        "footer_links": ["api"],
        "run_history": False,
        "show_error": False,
        "ssr_mode": False,
        "mcp_server": False,
        "pwa": False,
        "enable_monitoring": False,
        "max_file_size": "1mb",
        "state_session_capacity": SESSIONS,
        "strict_cors": True,
        "app_kwargs": {
            "lifespan": walled(
                [
                    *outermost,
                    Middleware(Guard, doors=Doors.of(settings, name)),
                    Middleware(PackedPage),
                ]
            ),
            "routes": [Mount("/look", StaticFiles(directory=LOOK))],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
    }


def build(arena: Arena, lexicon: Any) -> gr.Blocks:
    """Header, tabs and endpoints over one arena."""
    say, labels = texts_of("en"), Labels()
    title = "EmPO Arena"
    with Page(title=title, analytics_enabled=False, delete_cache=(600, 600)) as page:
        # Endpoints come first: a handler of the page with the same name would take their name.
        endpoints.build(arena)
        session = gr.BrowserState({}, storage_key=STORAGE_KEY, secret=STORAGE_SECRET)
        with gr.Row(elem_classes="head-row"):
            gr.HTML(MARK, elem_id="brand")
            badge = gr.HTML(elem_id="badge")
            if LOGIN in os.environ:
                gr.LoginButton(size="sm", min_width=120)
            switch = gr.Button(say("language.switch"), size="sm", min_width=36, elem_id="language")
            toggle = gr.Button("◐", size="sm", min_width=36, elem_id="toggle")
        with gr.Tabs(elem_id="tabs") as rooms:
            tabs = {
                name: labels.add(gr.Tab(say(f"tab.{name}"), id=name), f"tab.{name}", "label")
                for name in TABS
            }
            with tabs["arena"]:
                handlers = arena_tab.build(arena, session, badge, labels)
            with tabs["explore"]:
                explore_tab.build(arena, session, page, rooms, tabs["explore"], labels)
            with tabs["board"]:
                board_tab.build(arena, session, tabs["board"])
            with tabs["results"]:
                results_tab.build(arena.settings, session, tabs["results"], labels)
            with tabs["data"]:
                data_tab.build(arena, session, tabs["data"], labels)
            with tabs["about"]:
                about_tab.build(arena, lexicon, session, tabs["about"], labels)
        labels.add(switch, "language.switch")
        toggle.click(None, None, None, js=TOGGLE, api_visibility="private")
        outputs = list(dict.fromkeys([*handlers.parts.all(), *labels.components()]))
        # The timer runs only while the models load; the first answer says whether they still do.
        timer = gr.Timer(1.5, active=False)

        def restore(stored: Any, request: gr.Request) -> dict[Any, Any]:
            loading = arena.models.status().state == "loading"
            language = (request.headers or {}).get("accept-language", "en")
            return {**handlers.restore(stored, language), timer: gr.update(active=loading)}

        for event in (
            page.load(restore, [session], [*outputs, timer], **UNLISTED),
            switch.click(handlers.switch, [session], outputs, **UNLISTED),
        ):
            event.then(None, [session], None, js=LANGUAGE, api_visibility="private")

        def watch(stored: Any, request: gr.Request) -> dict[Any, Any]:
            done = arena.models.status().state != "loading"
            say, note = say_of(stored, request), handlers.parts.pair_note
            shown = {badge: handlers.badge(say), note: handlers.pair_note(say)}
            return {**shown, timer: gr.update(active=not done)}

        watched = [badge, handlers.parts.pair_note, timer]
        timer.tick(watch, [session], watched, **UNLISTED)
    progress_only_on(badge, page)
    return page


def load_models(arena: Arena, settings: Settings, decision: Decision) -> None:
    """Load SEM and engine and hand them to the arena, or say why they are not there.

    Without a SEM there is no guidance and no emotion, but the arena works.
    """

    failures = []
    jobs: dict[str, Any] = {
        "sem": lambda: arena.models.attach(sem=load_sem(settings)),
        "engine": lambda: arena.models.attach(engine=_engine_of(arena, settings, decision)),
    }
    for name, load in jobs.items():
        try:
            load()
        except ArenaError as error:
            log.error("%s", error)
            failures.append(str(error))
        except Exception as error:
            log.exception("Loading the %s failed", name)
            failures.append(f"The {name} could not be loaded ({type(error).__name__}).")
    if failures:
        arena.models.attach(failure=" ".join(failures))
    else:
        log.info("The models are ready: %s", arena.models.status().details)


def _engine_of(arena: Arena, settings: Settings, decision: Decision) -> Engine:
    """The engine of `decision`, or of the tiny pair if the base of the other one cannot be had."""

    meant = settings.preset == "smollm2" and settings.aligned is None
    if settings.engine == "local" and meant and arena.roster.pair == "smollm2":
        try:
            obtain(SMOLLM2, lambda *step: arena.models.begin(sentence(*step)))
        except Unavailable as error:
            log.warning("The tiny pair answers instead of SmolLM2. %s", error)
            roster = load_roster(settings.model_copy(update={"preset": "tiny"}))
            arena.change_pair(roster, error.sentence)
            return engine_loading.load_engine(settings, roster)
        arena.models.begin(Sentence(""))
    return decision.load()
