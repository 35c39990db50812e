"""Readers of logs that other tools have written. Each becomes a run; the logs themselves are only read.

One file reads one kind of log: it finds `Source`s below a folder and reads one as an `Imported`, which
`darkit.integrations.importers.writer.write` turns into a run directory. All content is untrusted: nothing in it is run,
links are not followed, and sizes are bounded.
"""

from __future__ import annotations
