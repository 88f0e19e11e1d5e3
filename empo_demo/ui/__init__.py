"""The page and its documented endpoints, over one arena.

In come what strangers send: clicks, texts, JSON, forged headers. Out come escaped HTML, figures
and plain sentences. `middleware` decides who may ask, `lanes` who waits for whom, `endpoints` is
the API, `handlers` the page's own. The room holds no rule of the arena and never touches a model
or a table: it asks the arena. Every handler can be called by anyone, so none trusts its arguments.
"""
