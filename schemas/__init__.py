"""What the rooms say to each other: configuration, records, tables, policies and errors."""
