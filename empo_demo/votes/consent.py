"""The text that a visitor reads before the first text is sent. Votes store its checksum.

Each language's text has a checksum of its own, so that a vote says which words were agreed to.
"""

from __future__ import annotations

import hashlib

TEXT = """\
If you agree, this arena stores what you write here, both replies, your vote, ratings and \
comment, what the emotion model read in your text, and how long you took. It is used for research \
on empathetic language models: votes rank the models and train the next ones, and may be \
published as a data set under the licence CC BY 4.0.
Do not write names, addresses or anything else that tells who you or others are. Rounds in which \
such details or signs of a crisis are noticed are never published.
Your browser holds a random token that ties your votes together. That makes them pseudonymous, \
not anonymous. Your network address is kept as a keyed hash only, for at most an hour, to limit \
abuse. If you log in with a Hub account and agree, your user name is stored too.
Votes are kept without a time limit until you delete them: "Delete all my data" removes them \
from the database at once, and from its private backup as soon as that can be reached. Votes are \
published 24 hours after they were cast at the earliest; for one that was already published, a \
tombstone is published, the row is taken out and the data set's history is squashed. Copies that \
others made cannot be called back.
If you do not agree, you can use the arena all the same: nothing is published or used, and what \
you wrote is erased an hour after your last round at the latest."""

GERMAN = """\
Wenn Sie zustimmen, speichert diese Arena, was Sie hier schreiben, beide Antworten, Ihre Stimme, \
Bewertungen und Kommentar, was das Emotionsmodell in Ihrem Text gelesen hat und wie lange Sie \
gebraucht haben. Das dient der Forschung an empathischen Sprachmodellen: Stimmen ordnen die \
Modelle und trainieren die nächsten, und sie können als Datensatz unter der Lizenz CC BY 4.0 \
veröffentlicht werden.
Schreiben Sie keine Namen, Adressen oder anderes, was verrät, wer Sie oder andere sind. Runden, in \
denen solche Angaben oder Zeichen einer Krise bemerkt werden, werden nie veröffentlicht.
Ihr Browser hält eine Zufallsnummer, die Ihre Stimmen verbindet. Damit sind sie pseudonym, nicht \
anonym. Ihre Netzadresse wird nur als verschlüsselte Prüfsumme und höchstens eine Stunde lang \
aufbewahrt, um Missbrauch zu begrenzen. Wenn Sie sich mit einem Hub-Konto anmelden und zustimmen, \
wird auch Ihr Benutzername gespeichert.
Stimmen werden ohne Frist aufbewahrt, bis Sie sie löschen: „Alle meine Daten löschen“ entfernt sie \
sofort aus der Datenbank, und aus deren privater Sicherung, sobald diese erreichbar ist. \
Veröffentlicht werden Stimmen frühestens 24 Stunden nach ihrer Abgabe; für eine, die schon \
veröffentlicht war, wird ein Löschvermerk veröffentlicht, die Zeile entfernt und der Verlauf des \
Datensatzes zusammengefasst. Kopien, die andere gemacht haben, lassen sich nicht zurückholen.
Wenn Sie nicht zustimmen, können Sie die Arena trotzdem benutzen: Nichts wird veröffentlicht oder \
verwendet, und was Sie geschrieben haben, wird spätestens eine Stunde nach Ihrer letzten Runde \
gelöscht."""

TEXTS = {"en": TEXT, "de": GERMAN}
"""The same text by language."""


def version_of(text: str) -> str:
    """The checksum that a vote carries: SHA-256, in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


VERSION = version_of(TEXT)
VERSIONS = frozenset(map(version_of, TEXTS.values()))
"""The versions that a visitor may agree to now."""
