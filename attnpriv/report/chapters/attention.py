"""Where attention goes: its lift on personal data, by head, layer, type and class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from attnpriv.audit.results import NotRun
from attnpriv.report.blocks import (
    UNCOVERED,
    Block,
    Controls,
    Details,
    Group,
    Heading,
    How,
    Plot,
    Table,
    Text,
    Words,
    both,
)
from attnpriv.report.chapter import Chapter, Figure, Question
from attnpriv.report.drawing import INK, LEVELS, STAND_INS, as_svg, canvas, forest
from attnpriv.report.findings import (
    MORE_RECORDS,
    NO_ACTION,
    NO_PERSONAL_DATA,
    OTHER_RECORDS,
    SLIGHTLY,
    TOO_FEW,
    Finding,
    Level,
    above_chance,
    invalid,
    is_significant,
    not_run,
    small,
    stands_out,
)
from attnpriv.report.formats import interval, number, percent
from attnpriv.report.lifts import AVERAGE, COLUMNS, LIKE, lift_cells, lift_row, token_lifts
from attnpriv.report.measured import measured_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from attnpriv.audit.attention import AttentionResult, Head
    from attnpriv.audit.lift import Lift
    from attnpriv.audit.measures import AuditResult

READ_ON = "Read whether the answers rely on it: attention alone explains nothing."
SHOWN_LIFT = 2.0  # the end of the colours; they are the same in every run


def finding(result: AuditResult) -> Finding:
    """The lift on personal data against both nulls.

    A lift over the average word that words of the same length nearby show too is no finding.
    """
    attention = result.attention
    name = "Attention to personal data"
    if isinstance(attention, NotRun):
        return not_run("attention", name, attention.not_run, NO_ACTION)
    overall, matched = attention.overall, attention.matched
    if overall.lift.value is None:
        return not_run("attention", name, NO_PERSONAL_DATA, OTHER_RECORDS)
    if not (attention.null.passed and attention.matched_null.passed):
        return invalid("attention", name, attention.null, attention.matched_null)
    figure = (
        f"Personal data gets {interval(overall.lift, 3)} times the attention of an average word, "
        f"and {interval(matched.lift, 3)} times that of like words nearby"
    )
    powered = attention.planted.passed and attention.matched_planted.passed
    if above_chance(matched):
        return _favoured(attention, figure)
    if not powered:
        title = "No difference in attention to personal data was found"
        if above_chance(overall):
            title = "Attention favours personal data, perhaps for its length and place"
        return Finding("warn", title, f"{figure}. {TOO_FEW}", "attention", MORE_RECORDS)
    return _not_favoured(figure, above_chance(overall), is_significant(overall.p_value))


def _favoured(attention: AttentionResult, figure: str) -> Finding:
    slightly = small(attention.matched)
    return Finding(
        "info" if slightly else "warn",
        f"Attention favours personal data{SLIGHTLY if slightly else ''}",
        f"{figure}: more than chance explains.{_where(attention)}",
        "attention",
        READ_ON,
    )


def _not_favoured(figure: str, more: bool, differs: bool) -> Finding:
    """Like words nearby get as much, in records enough to have told otherwise."""
    if more:
        title = "Attention favours personal data no more than like words"
        text = f"{figure}: its length and place explain the difference."
    elif differs:
        title = "Attention does not favour personal data"
        text = f"{figure}, less than chance gives."
    else:
        title = "No difference in attention to personal data was found"
        text = f"{figure}, as chance alone gives."
    level: Level = "good" if differs and not more else "info"
    return Finding(level, title, text, "attention", READ_ON)


def _where(attention: AttentionResult) -> str:
    """Which heads and types favour it beyond chance, after correction for looking at many."""
    heads = sum(stands_out(head.content) for head in attention.heads)
    where = (
        f" Compared with the average word, {heads} of {len(attention.heads)} heads favour it "
        "beyond chance"
    )
    types = [
        f"{each.name} ({each.permuted.lift.value:.2f})"
        for each in attention.entity_types
        if stands_out(each.permuted)
    ]
    return f"{where}; by type, {', '.join(types)}." if types else f"{where}."


def body(runs: Sequence[AuditResult], include_text: bool) -> Iterator[Block]:
    """All heads together, then each run by head, layer, type and class."""
    yield Text(
        Markup(
            "Lift compares the attention that personal data gets with what an average word of the "
            "same record gets: 1 means the same, 2 twice as much. Special tokens ([CLS], [SEP]) "
            "are left out, since they attract attention whatever the text says. “Like words "
            "nearby” compares each word of personal data with the nearest other word of the same "
            "length. Grey bars show what chance gives: the lift when the labels “personal data” "
            "are shuffled, or when matched words change places. {}"
        ).format(UNCOVERED)
    )
    yield Plot(
        _lifts(runs),
        "Plot: lift on personal data",
        "Attention and attribution side by side: every lift of every model, with 95 % intervals. "
        "The tables of this section and of the next ones hold the figures.",
    )
    measured = [
        (number_, run.name, run.attention)
        for number_, run in enumerate(runs)
        if not isinstance(run.attention, NotRun)
    ]
    yield from measured_of(runs, "attention")[1]
    if not measured:
        return
    yield _overall([(name, a) for _, name, a in measured])
    yield Text("Words are counted in tokens, the pieces that the model reads.", "note")
    if types := _types(measured):
        label = "Plot: lift by type of personal data"
        caption = "Attention lift by type of personal data, over the average word."
        yield Plot(types, label, caption)
    for number_, name, a in measured:
        yield from _of_run(name, a, number_)
    yield _how(measured[0][2])


def _overall(runs: Sequence[tuple[str, AttentionResult]]) -> Table:
    columns = (
        "Model",
        "Records with personal data",
        "Words of personal data",
        Group(AVERAGE, COLUMNS[:3]),
        Group(LIKE, (*COLUMNS[:3], "Pairs")),
    )
    rows = (
        (
            name,
            f"{a.documents_with_sensitive} of {a.documents}",
            f"{a.sensitive_tokens} of {a.content_tokens}",
            *lift_cells(a.overall, corrected=False),
            *lift_cells(a.matched, corrected=False),
            str(a.matched_tokens),
        )
        for name, a in runs
    )
    return Table("Lift of attention over all heads", columns, tuple(rows))


def _of_run(name: str, a: AttentionResult, number_: int) -> Iterator[Block]:
    yield Heading(name)
    yield Plot(
        _heads(name, a, number_),
        f"Plot: heads of {name}",
        "Lift of each head. A dot: beyond chance at 5 % after correction for all heads "
        f"({a.permutations} permutations).",
    )
    yield Details(f"Every head of {name}", (_head_table(name, a),))
    parts = [token_lifts(f"Attention by layer, {name}", a.layers, "Layer")]
    if a.entity_types:
        parts.append(token_lifts(f"Attention by type, {name}", a.entity_types, "Type"))
    parts.append(token_lifts(f"Attention by class, {name}", a.labels, "Class"))
    yield Details(f"Layers, types and classes of {name}", tuple(parts))
    controls = both(a.planted, a.null), both(a.matched_planted, a.matched_null, "matched")
    yield Controls((*controls[0], *controls[1]))


def _head_table(name: str, a: AttentionResult) -> Table:
    columns = (
        "Layer, head",
        Group(AVERAGE, COLUMNS),
        Group(LIKE, COLUMNS),
        "Row lift",
        "Mass on special tokens",
        "Entropy, 0 to 1",
        "Largest weight",
    )
    return Table(f"Heads of {name}", columns, tuple(map(_head_row, a.heads)))


def _head_row(head: Head) -> tuple[Words, ...]:
    return (
        f"{head.layer + 1}, {head.head + 1}",
        *lift_cells(head.content),
        *lift_cells(head.matched),
        number(head.row_lift, 2),
        percent(head.special_mass),
        number(head.normalised_entropy),
        number(head.largest_weight),
    )


def _how(first: AttentionResult) -> How:
    return How(
        "results[].attention",
        "Lift: what all records’ personal data gets over its uniform share; interval by bootstrap "
        f"over records ({first.resamples} resamples, seed {first.seed}). p: {first.permutations} "
        "permutations within records. maxT: corrected by the largest deviation (Westfall and Young "
        "1993). Holm: by Holm’s steps (1979). Both corrections are within one table; Holm’s cannot "
        "fall below the number of rows over the number of permutations.",
    )


def _lifts(runs: Sequence[AuditResult]) -> Markup:
    """Every lift on personal data of each run, attention and attribution side by side."""
    lifts = [_by_kind(run) for run in runs]
    rows = [
        lift_row(kind, number_, run.name, own[kind])
        for kind in dict.fromkeys(kind for own in lifts for kind in own)
        for number_, (run, own) in enumerate(zip(runs, lifts, strict=True))
        if kind in own
    ]
    label = "lift on personal data (1: like other words); grey: what chance gives"
    return forest("lift", "Lift on personal data by measure and model", rows, label, 1.0)


def _by_kind(run: AuditResult) -> dict[str, Lift]:
    found: dict[str, Lift] = {}
    if not isinstance(run.attention, NotRun):
        found |= {"attention": run.attention.overall, "attention, matched": run.attention.matched}
    if not isinstance(run.flow, NotRun):
        found["rollout"] = run.flow.rollout.permuted
        found["norm-weighted"] = run.flow.norm_weighted.permuted
    if not isinstance(run.spatial_gates, NotRun):
        found["spatial gates"] = run.spatial_gates.overall.permuted
    found["integrated gradients"] = run.attribution.lift
    found["leaving one out"] = run.occlusion.lift.permuted
    if not isinstance(run.gradcam, NotRun):
        found["GradCAM"] = run.gradcam.gradcam.lift.permuted
        found["HiResCAM"] = run.gradcam.hirescam.lift.permuted
    return found


def _types(runs: Sequence[tuple[int, str, AttentionResult]]) -> Markup | None:
    """The lift of each entity type; None where no type is known."""
    rows = [
        lift_row(each.name, number_, name, each.permuted)
        for number_, name, a in runs
        for each in a.entity_types
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row.group)
    label = "attention lift (1: like other words); grey: what chance gives"
    return forest("types", "Attention lift by type of personal data", rows, label, 1.0)


def _heads(name: str, a: AttentionResult, number_: int) -> Markup:
    """Lift of each head, layer by layer; a dot marks those beyond chance after correction."""
    from matplotlib.colors import ListedColormap

    heads = a.heads
    layers, width = heads[-1].layer + 1, heads[-1].head + 1
    values = [_or_nan(head) for head in heads]
    grid = [values[layer * width : (layer + 1) * width] for layer in range(layers)]
    with canvas(1.5 + 0.47 * width, 0.75 + 0.34 * max(layers, 2)) as (figure, axes):
        axes.grid(visible=False)
        colours = ListedColormap([STAND_INS[f"d{i}"] for i in range(LEVELS)])
        mesh = axes.pcolormesh(grid, cmap=colours, vmin=0, vmax=SHOWN_LIFT)
        for head in heads:
            _annotate(axes, head)
        axes.set_xticks([i + 0.5 for i in range(width)], [str(i + 1) for i in range(width)])
        axes.set_yticks([i + 0.5 for i in range(layers)], [str(i + 1) for i in range(layers)])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.invert_yaxis()
        axes.set(xlabel="head", ylabel="layer")
        bar = figure.colorbar(mesh, ax=axes, ticks=(0, 1, 2), aspect=12)
        bar.set_label("lift")
        bar.ax.set_yticklabels(["0", "1", "≥ 2"])
        bar.outline.set_visible(False)
        title = f"Attention lift of each head of {name}"
        return as_svg(figure, f"heads{number_}", title, _heads_in_words(heads))


def _or_nan(head: Head) -> float:
    value = head.content.lift.value
    return float("nan") if value is None else value


def _marked(head: Head) -> bool:
    return is_significant(head.content.p_adjusted)


def _heads_in_words(heads: Sequence[Head]) -> list[str]:
    values = [head.content.lift.value for head in heads if head.content.lift.value is not None]
    if not values:
        return ["no lift could be measured"]
    spread = f"from {min(values):.2f} to {max(values):.2f}"
    return [spread, f"{sum(map(_marked, heads))} of {len(heads)} heads beyond chance"]


def _annotate(axes: Axes, head: Head) -> None:
    value = head.content.lift.value
    if value is not None:
        text = f"{value:.2f}" + ("•" if _marked(head) else "")
        at = head.head + 0.5, head.layer + 0.5
        axes.text(*at, text, ha="center", va="center", fontsize=7, color=INK, in_layout=False)


CHAPTER = Chapter(
    name="attention",
    place=40,
    title="Attention on personal data",
    body=body,
    asks=Question(
        "Does attention focus on personal data?",
        "Attention on personal data, compared with an average word and with like words nearby.",
        finding,
    ),
    figures=(
        Figure(
            "attention.overall.lift",
            "attention lift on personal data",
            higher_is_worse=True,
            main=True,
            comparable=True,
        ),
        Figure(
            "attention.matched.lift",
            "attention lift over like words nearby",
            higher_is_worse=True,
            main=True,
            comparable=True,
        ),
        Figure("attention.heads[*].normalised_entropy", "entropy of attention", comparable=True),
        Figure("attention.heads[*].special_mass", "attention on special tokens", comparable=True),
        Figure("attention.heads[*].largest_weight", "largest weight of a head", "most found"),
    ),
)
