"""Sources: one file per dataset schema, each turning its rows into `Example`s."""
