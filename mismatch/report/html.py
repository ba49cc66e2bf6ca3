"""report.md and report.html of a run folder: reads what is there, draws, writes. Hashes nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from mismatch import __version__, shapes, store
from mismatch.glossary import DISTRIBUTION, NOT_TRUSTED, ROUTES_NOTE, WHY_NOT_TRUSTED, about
from mismatch.report import routed, shares, view, words
from mismatch.report.blocks import blocks
from mismatch.report.checks import NOT_RUN, climbed, rungs, where
from mismatch.report.data import SHADES
from mismatch.report.finding import finding, notices
from mismatch.report.markdown import markdown
from mismatch.report.pairs import SLOTS, lead, pairs_of
from mismatch.report.plots import strip_axis, waterfall
from mismatch.report.provenance import read_provenance, rows
from mismatch.report.vocabulary import Vocabulary
from mismatch.report.words import clean

_HERE = Path(__file__).parent

#: A capture that failed and the sentence that says why.
Failure = tuple[str, str]


def build(root: Path) -> tuple[Path, Path]:
    """Write report.md and report.html of a run folder; equal inputs give equal bytes.

    root: a folder with summary.json, comparisons/ and, where there are any, traces/, corpus/ and
    failed/. The caller has checked the hashes. Returns (report.md, report.html).
    """
    summary = store.read_json(root / "summary.json")
    failures = _failures(root)
    text, page = root / "report.md", root / "report.html"
    store.write_text(text, markdown(summary, _lead_differences(root, summary), failures))
    store.write_text(page, _page(root, summary, failures))
    return text, page


def _failures(root: Path) -> list[Failure]:
    found = []
    for path in sorted((root / "failed").glob("*/*/error.json")):
        error = store.read_json(path, shapes.Failure)
        sentence = f"{error['boundary']}: {error['type']}: {error['message']}"
        found.append(("/".join(path.parts[-3:-1]), sentence))
    return found


def _lead_differences(root: Path, summary: Mapping[str, Any]) -> list[tuple[str, str, str]] | None:
    first = lead(pairs_of(summary))
    sides = [read_provenance(root, trace) for trace in first.traces] if first else []
    if len(sides) != 2 or sides[0] is None or sides[1] is None:
        return None
    return [(r.name, r.left, r.right) for r in rows(sides[0], sides[1]) if r.differs]


def _page(root: Path, summary: Mapping[str, Any], failures: Sequence[Failure]) -> str:
    pairs = pairs_of(summary)
    first = lead(pairs)
    axis = view.shared_axis(pairs)
    script, style = inlined(SCRIPTS), inlined(STYLES)
    vocabulary = Vocabulary()
    groups = view.groups(pairs, axis)
    template = environment().get_template("template.html.j2")
    return template.render(
        axis=Markup(strip_axis(axis)),
        attributions=[(one, waterfall(one)) for one in shares.shares_of(summary)],
        share_cells=shares.cells,
        share_head=shares.HEAD,
        share_legend=shares.LEGEND,
        blocks=blocks(root, pairs, first, vocabulary),
        checks=[(check, where(ids, pairs)) for check, ids in climbed(pairs)],
        command=view.command_facts(summary),
        failures=failures,
        distribution_note=DISTRIBUTION.replace("`", ""),
        finding=finding(summary),
        doubted=any(row.doubted for _, members in groups for row in members),
        groups=groups,
        hero=view.hero(first, axis),
        not_run=NOT_RUN,
        policy=policy(script, style),
        routes_note=ROUTES_NOTE.replace("`", ""),
        routes_of=routed.everything,
        rungs=rungs(pairs),
        sampled=notices(pairs),
        script=script,
        style=style,
        version=__version__,
        vocabulary=vocabulary.block(),
        why_not_trusted=WHY_NOT_TRUSTED,
    )


#: What a page carries in itself: a page of boxes alone needs the tips alone.
TIPS = ("tips.js",)
SCRIPTS = (*TIPS, "data.js", "sequence.js", "viewer.js", "links.js")
STYLES = ("style.css",)


def inlined(names: Sequence[str]) -> Markup:
    """Files that stand beside this one, one after the other."""
    return Markup("\n".join((_HERE / name).read_text("utf-8") for name in names))


def policy(script: str, style: str) -> str:
    """Content security policy: this page loads nothing and runs no script but its own."""
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    one, other = (f"'sha256-{digest}'" for digest in digests)
    rest = "base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {one}; style-src {other}; {rest}"


_WORDS = ("NONE", "brackets", "count", "interval", "number", "percent", "percents")


def environment() -> jinja2.Environment:
    """Autoescape is on, and every string that is not markup loses its control characters."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.globals.update(
        DOUBTED=words.DOUBTED, NOT_TRUSTED=NOT_TRUSTED, SHADES=SHADES, SLOTS=SLOTS, about=about
    )
    for name in (*_WORDS, "sample_size", "why_no_interval"):
        made.globals[name] = getattr(words, name)
    return made


def _finalize(value: Any) -> Any:
    return clean(value) if isinstance(value, str) and not isinstance(value, Markup) else value
