from vouch_labels.flows.artifacts import MOST_ROWS, markdown
from vouch_labels.schemas.text import NONE, Table, count


def test_lines_and_tables_become_markdown_whatever_the_names():
    table = Table("by `class`", {"class": str, "labels": count}, [("cat|s", 1400), ("[dog](x)", None)])
    assert markdown("Run a_b", ["**no** markup", table]) == "\n\n".join(
        [
            r"# Run a\_b",
            r"\*\*no\*\* markup",
            r"**by \`class\`**",
            f"| class | labels |\n| --- | --- |\n| cat\\|s | 1,400 |\n| \\[dog\\](x) | {NONE} |",
        ]
    )


def test_long_tables_are_cut():
    rows = [(str(row),) for row in range(MOST_ROWS + 5)]
    assert len(markdown("", [Table("", {"row": str}, rows)]).splitlines()) == 2 + 2 + MOST_ROWS
