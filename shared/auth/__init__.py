"""Who is there, and what they may do: from a credential on a connection to a Principal.

Every service verifies tokens by itself, with public keys; only the auth service can sign one.
`authenticator.Authenticator` puts the parts together.
"""
