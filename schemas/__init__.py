"""What the packages exchange: configuration, records, tables, policies and errors."""
