"""Any table: how it arrives and is cut into periods, its rules, and unit tests of data."""
