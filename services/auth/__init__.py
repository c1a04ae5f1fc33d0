"""The auth service: accounts, sessions, tokens and the keys that sign them. The only one with a database."""
