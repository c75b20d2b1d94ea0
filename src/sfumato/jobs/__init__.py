"""Jobs: units of work with a key and a record, used by any protocol."""
