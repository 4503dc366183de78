"""What the terminal shows: progress, tables, previews."""
