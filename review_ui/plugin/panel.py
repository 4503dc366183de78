"""The panel of the queue: how far it is, what is left, what to do next; help on the keys."""

from typing import Final

import fiftyone.operators as foo
import fiftyone.operators.types as types

from vouch_labels.review_ui.plugin.operators import batch, review_session
from vouch_labels.schemas.errors import VouchError
from vouch_labels.schemas.queue import Kind, Progress

PLUGIN: Final = "@vouch/review"
NAME: Final = "review_queue"
_ROWS: Final = 12
"""Classes that are listed by name."""
_KINDS: Final[dict[Kind, str]] = {
    "label": "labels: is it right?",
    "possible_miss": "images: is there one?",
    "image": "images: find every one",
}
_KEYS: Final = """
| keys | |
|---|---|
| **Alt+Enter** | submit as it is on the screen: correct, if you changed nothing |
| **Alt+1** ... **Alt+9** | another class: the first nine |
| **Alt+0** | any other class: type a part of its name, Enter, then Alt+Enter |
| **Alt+B** | the box does not fit; better: move it, then Alt+Enter |
| **Alt+N** | not an object, or a second box on one |
| **Alt+M** | take the mask off, so that the box can be moved |
| **Alt+D** | draw a box |
| **Alt+H** | what the models say of it, once you have looked for yourself |
| **Alt+S** | skip |
| **Alt+Z** | undo the last answer |
| **Alt+T** | take a batch |
| **Alt+G** | crop grid |
| **Left**, **Right** | look at the items beside |

Draw what no box shows; it goes in with the answer.
"""


class ReviewQueue(foo.Panel):  # type: ignore[misc] # fiftyone has no types
    """Shows the queue to one reviewer."""

    @property
    def config(self) -> foo.PanelConfig:
        """How it is called."""
        return foo.PanelConfig(
            name=NAME, label="Review queue", icon="fact_check", surfaces="grid", allow_multiple=False
        )

    def on_load(self, ctx: foo.ExecutionContext) -> None:
        """Nothing to prepare: it is drawn from the queue."""

    def on_change_current_sample(self, ctx: foo.ExecutionContext) -> None:
        """Draw it again when people come back from an item."""

    def take_batch(self, ctx: foo.ExecutionContext) -> None:
        """Take items in the browser, which then opens the first."""
        _in_browser(ctx, "take")

    def crop_grid(self, ctx: foo.ExecutionContext) -> None:
        """Open the grid in the browser."""
        _in_browser(ctx, "grid")

    def give_back(self, ctx: foo.ExecutionContext) -> None:
        """Return everything."""
        _in_browser(ctx, "giveBack")

    def refresh(self, ctx: foo.ExecutionContext) -> None:
        """Draw it again."""

    def render(self, _ctx: foo.ExecutionContext) -> types.Property:
        """Draw the panel."""
        panel = types.Object()
        try:
            progress = review_session().progress()
        except VouchError as error:
            panel.md(f"**{error}**", name="trouble")
            return types.Property(panel)
        done, all_items = progress.answered, progress.answered + progress.leased + progress.open
        bar = types.ProgressView(label=f"{done:,} of {all_items:,} answered")
        panel.float("done", default=done / max(all_items, 1), view=bar)
        panel.md(_summary(progress), name="summary")
        row = panel.h_stack("buttons", gap=1)
        row.btn(
            "take",
            label=f"Take a batch of {batch()}",
            icon="playlist_add",
            variant="contained",
            on_click=self.take_batch,
        )
        row.btn("grid", label="Crop grid", icon="grid_view", variant="outlined", on_click=self.crop_grid)
        row.btn("back", label="Give all back", icon="undo", variant="outlined", on_click=self.give_back)
        row.btn("refresh", label="Refresh", icon="refresh", variant="outlined", on_click=self.refresh)
        panel.md(_left(progress), name="left")
        panel.md(_KEYS, name="keys")
        return types.Property(panel, view=types.GridView(orientation="vertical", gap=1, padding=2))


def _in_browser(ctx: foo.ExecutionContext, action: str) -> None:
    ctx.trigger(f"{PLUGIN}/in_browser", {"action": action})


def _summary(progress: Progress) -> str:
    parts = [f"about **{_minutes(progress.minutes_left)}** left", f"**{progress.mine}** in your session"]
    parts.append(f"**{progress.answered_by_me}** answered by you")
    if progress.seconds_each is not None:
        parts.append(f"**{progress.seconds_each:.1f} s** each")
    return ", ".join(parts) + (f"\n\n{progress.certified}" if progress.certified else "")


def _minutes(minutes: float) -> str:
    if minutes < 1:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


def _left(progress: Progress) -> str:
    lines = ["| left | |", "|---|---|"]
    lines += [f"| {_KINDS[kind]} | {count:,} |" for kind, count in progress.by_kind.items() if count]
    classes = sorted(progress.by_class.items(), key=lambda one: -one[1])
    lines += [f"| {_cell(name) or 'every class'} | {count:,} |" for name, count in classes[:_ROWS] if count]
    rest = classes[_ROWS:]
    if rest:
        lines.append(f"| {len(rest)} more classes | {sum(count for _, count in rest):,} |")
    return "\n".join(lines)


def _cell(name: str) -> str:
    """A class name within a table of Markdown."""
    return "".join(f"\\{sign}" if sign in "\\|*_`<>[]#~!" else sign for sign in name)
