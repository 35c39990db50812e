"""The help in English: queries and keys."""

from __future__ import annotations

ENGLISH_HELP = {
    "help": "Help",
    "help_queries": "Queries",
    "help_try": "Click an example to search for it. Of several conditions all must hold.",
    "query_words": "these words in a name, tag, note, state, model or project",
    "query_config": "a config value: the whole key, or its end",
    "query_metric": "the last value of a metric",
    "query_best": "its best value",
    "query_state": "a state",
    "query_tag": "a tag",
    "query_started": "started since the beginning of yesterday",
    "query_day": "started on that day; also today, 2026-11-28, 2d",
    "query_duration": "trained for longer",
    "query_not": "not",
    "query_or": "one of two conditions",
    "query_pattern": "a regular expression",
    "key_search": "Search runs",
    "key_move": "Next or previous run",
    "key_tick": "Tick the run",
    "key_open": "Open the run",
    "key_compare": "Compare the ticked runs",
    "key_escape": "Leave a field, or clear the selection",
    "key_runs": "Go to the runs",
    "key_palette": "Find a run or a command",
    "key_help": "Keyboard",
    "key_this": "This help",
}
