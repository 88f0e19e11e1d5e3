"""Votes in and out: exports for training and tables, imports, backups, and data sets on the Hub.

Stored rounds, files of records, and the rows of a data set come in. Preference pairs (TRL), rated
replies (KTO), tables and full records go out, without guidance and with personal data masked; only
a backup file masks nothing. Votes that are left out are counted by reason. The Hub has up to two
data sets: one publishes votes after a day, one is a private backup. This room must never publish a
round that is withdrawn, hidden or without consent, and never change what a stored round says.
"""
