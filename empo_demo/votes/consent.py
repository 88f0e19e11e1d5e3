"""What a visitor is told before the first text is sent; its checksum goes with every vote."""

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
Votes are kept without a time limit until you delete them: "Delete my data" removes them from \
the database at once. Votes are published 24 hours after they were cast at the earliest; for one \
that was already published, a tombstone is published, the row is taken out and the data set's \
history is squashed. Copies that others made cannot be called back.
If you do not agree, you can use the arena all the same: nothing is published or used, and what \
you wrote is erased an hour after your last round at the latest."""

VERSION = hashlib.sha256(TEXT.encode()).hexdigest()
