"""Every change of the ledger's tables, in order; nothing here is edited once released."""
