"""Votes in and out: exports for training and tables, imports, and the data set on the Hub.

In come stored rounds, files of records, and a data set's rows. Out go preference pairs (TRL),
rated replies (KTO), tables and full records, without guidance, and with personal data masked.
What is left out is counted by reason. This room must never publish a round that is withdrawn,
hidden or without consent, nor change a round that is there.
"""
