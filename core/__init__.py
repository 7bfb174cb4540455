"""What two or more of headrace's packages must agree on: settings, errors, records, tables, ledger."""
